/** Identity hashes: what a layer is made of, reduced to 16 hex digits. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import path from 'node:path';
import { ImageId } from '../../protocol/ids.ts';

/** Raise when the way layers are packed changes (erofs options, ownership), so that all of them are built again. */
const FORMAT = 1;

export const sha256 = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex');

/** SHA-256 (hex) of a file's bytes, read as a stream. */
export async function sha256File(file: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, signal === undefined ? {} : { signal }))
    hash.update(chunk);
  return hash.digest('hex');
}

/** JSON with sorted keys: the same value always gives the same text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** Identity of a layer from everything that goes into it. */
export const layerId = (name: string, inputs: unknown): string =>
  sha256(canonicalJson({ format: FORMAT, name, inputs })).slice(0, 16);

/** Identity of an image from its layers' identities, bottom to top. */
export const imageId = (layerIds: readonly string[]): ImageId =>
  ImageId.parse(sha256(canonicalJson({ format: FORMAT, layers: layerIds })).slice(0, 16));

/**
 * Every file below `root`: relative path -> what it is (mode and content hash, or link target), sorted.
 * Git keeps only the executable bit, so a file counts as 755 or 644 and a checkout's umask does not matter.
 */
export async function hashTree(root: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => !entry.isDirectory()).map((e) => path.join(e.parentPath, e.name));
  for (const file of names.sort()) {
    const stat = await lstat(file);
    const relative = path.relative(root, file);
    if (stat.isSymbolicLink()) found[relative] = `link ${await readlink(file)}`;
    else found[relative] = `${(stat.mode & 0o111) === 0 ? '644' : '755'} ${sha256(await readFile(file))}`;
  }
  return found;
}
