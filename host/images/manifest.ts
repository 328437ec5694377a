/** Shapes and file names of the image cache; see `store.ts` for its layout. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { DriverName } from '../../protocol/host.ts';
import { ImageId } from '../../protocol/ids.ts';

/** Identity of a layer: the first 16 hex digits of a SHA-256 over its inputs (not over its bytes). */
export const LayerId = z.string().regex(/^[0-9a-f]{16}$/);

export const LayerName = z.enum(['base', 'clis', 'agent']);
export type LayerName = z.infer<typeof LayerName>;

/** A finished layer, as recorded beside its file. `file` is relative to the cache directory. */
export const Layer = z.object({
  name: LayerName,
  id: LayerId,
  file: z.string(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  bytes: z.number().int().positive(),
  created: z.iso.datetime(),
  /** What the layer holds, name -> version: packages of the base, CLIs, the agent. */
  contents: z.record(z.string(), z.string()),
});
export type Layer = z.infer<typeof Layer>;

/** A boot of the image to the end of its checklist, on the host that has it. */
export const BootRecord = z.object({
  at: z.iso.datetime(),
  driver: DriverName,
  /** From the request for the machine to the last checkpoint. */
  ms: z.number().int(),
  checkpoints: z.array(z.string()),
});
export type BootRecord = z.infer<typeof BootRecord>;

/** An image: its layers bottom to top. Written only after verification passed. */
export const ImageManifest = z.object({
  schema: z.literal(1),
  id: ImageId,
  layers: z.array(Layer).min(1),
  created: z.iso.datetime(),
  verified: z.iso.datetime(),
  /** Absent until it has booted here; only then it can become current. */
  booted: BootRecord.optional(),
});
export type ImageManifest = z.infer<typeof ImageManifest>;

/** The version of the agent that an image was verified with; null when its manifest names none. */
export const agentVersionOf = ({ layers }: Pick<ImageManifest, 'layers'>): string | null =>
  layers.find(({ name }) => name === 'agent')?.contents.agent ?? null;

/** A manifest that has not been verified yet. */
export type UnverifiedImage = Omit<ImageManifest, 'verified' | 'booted'>;

/** Names inside a cache directory. */
export const cacheFiles = (cacheDir: string) => ({
  layersDir: path.join(cacheDir, 'layers'),
  imagesDir: path.join(cacheDir, 'images'),
  tmpDir: path.join(cacheDir, 'tmp'),
  debsDir: path.join(cacheDir, 'debs'),
  usersDir: path.join(cacheDir, 'users'),
  current: path.join(cacheDir, 'current'),
  lock: path.join(cacheDir, 'build.lock'),
  layerFile: (name: LayerName, id: string) => path.join('layers', `${name}-${id}.erofs`),
  layerRecord: (name: LayerName, id: string) => path.join(cacheDir, 'layers', `${name}-${id}.json`),
  manifest: (id: string) => path.join(cacheDir, 'images', `${id}.json`),
});

/** Writes a file so that a reader sees the old content or the new one, never a part: temp file, then rename. */
export async function replaceFile(file: string, content: string): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, content, { flush: true });
  await rename(temporary, file);
}

/** Reads and checks a JSON file; undefined when it does not exist. Throws on a file of another shape. */
export async function readRecord<T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return schema.parse(JSON.parse(text));
}
