/** Makes one layer: content into a staging directory, staging directory into an erofs file, file into the cache. */
import { chmod, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { EPOCH } from '../../images/recipe.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { type Devices, placeDevices } from './devices.ts';
import { sha256File } from './identity.ts';
import { cacheFiles, Layer, type LayerName, readRecord, replaceFile } from './manifest.ts';
import type { Sandbox } from './sandbox.ts';

/** How far a stage is. `bytes` are those fetched or written so far; `fraction` is 0..1 where it can be known. */
export interface StageProgress {
  readonly message: string;
  readonly bytes?: number;
  readonly fraction?: number;
}

/** What the builder of a layer's content gets. */
export interface FillContext {
  readonly cacheDir: string;
  /** Runs what the builder did not write. */
  readonly sandbox: Sandbox;
  /** Scratch directory of this layer; gone after the build. */
  readonly scratch: string;
  readonly signal: AbortSignal;
  readonly progress: (progress: StageProgress) => void;
  readonly log: (line: string) => void;
}

/**
 * How mkfs.erofs packs a layer; part of its identity. The base is the one that everybody fetches and nobody changes: 64 KiB clusters
 * of lz4hc make it 382 MB instead of 486, for 31 s instead of 5 of packing. Both are read with the same lz4.
 */
export const PACKING = { base: ['-zlz4hc', '-C65536'], others: ['-zlz4'] } as const satisfies Record<
  string,
  readonly string[]
>;

/** A layer that could be built: its identity is known, its content is not made yet. */
export interface LayerPlan {
  readonly name: LayerName;
  readonly id: string;
  /** Options of mkfs.erofs; default PACKING.others. */
  readonly packing?: readonly string[];
  /** Whether everything in it belongs to root, whoever staged it. */
  readonly ownedByRoot?: boolean;
  /** What `fill` makes as FIFOs where it is confined, see devices.ts. */
  readonly devices?: Devices;
  /** Fills `root` (created empty by the caller) and says what it now holds, name -> version. */
  fill(root: string, context: FillContext): Promise<Record<string, string>>;
}

/** The finished layer of a plan if the cache holds it whole (record, file, size), else undefined. */
export async function findLayer(
  cacheDir: string,
  plan: Pick<LayerPlan, 'name' | 'id'>,
): Promise<Layer | undefined> {
  const record = await readRecord(cacheFiles(cacheDir).layerRecord(plan.name, plan.id), Layer);
  if (record === undefined) return undefined;
  const size = await stat(path.join(cacheDir, record.file)).then(
    (found) => found.size,
    () => -1,
  );
  return size === record.bytes ? record : undefined;
}

/** A fixed UUID for a layer's file system, taken from its identity (RFC 9562 version 8). */
const layerUuid = (id: string): string =>
  `${id.slice(0, 8)}-${id.slice(8, 12)}-8${id.slice(12, 15)}-8${id.slice(0, 3)}-${id.slice(4, 16)}`;

/**
 * Packs `root` as erofs into `file`: the same tree and id give the same bytes (fixed time and UUID, sorted entries). It is
 * packed in `sandbox`, whose ids are those in the file.
 */
export async function packErofs(
  root: string,
  file: string,
  plan: Pick<LayerPlan, 'id' | 'packing' | 'ownedByRoot'>,
  sandbox: Sandbox,
  signal: AbortSignal,
): Promise<void> {
  const { id, packing = PACKING.others, ownedByRoot = false } = plan;
  await writeFile(file, '', { mode: 0o600 });
  await sandbox.give([file]);
  const owners = ownedByRoot ? ['--all-root'] : [];
  await sandbox.run(
    ['mkfs.erofs', '--quiet', ...packing, ...owners, `-T${EPOCH}`, `-U${layerUuid(id)}`, file, root],
    { what: `packing ${path.basename(file)}`, deadline: 600_000, signal },
  );
  await sandbox.take([file]);
  await chmod(file, 0o644);
}

/** Builds the layer of `plan` unless the cache holds it. `packing` is told when the content is complete. */
export async function ensureLayer(plan: LayerPlan, context: Omit<FillContext, 'scratch'>): Promise<Layer> {
  const { cacheDir, signal, sandbox } = context;
  const files = cacheFiles(cacheDir);
  const existing = await findLayer(cacheDir, plan);
  if (existing !== undefined) return existing;

  const scratch = path.join(files.tmpDir, `${plan.name}-${plan.id}`);
  await sandbox.remove(scratch);
  const root = path.join(scratch, 'root');
  await mkdir(root, { recursive: true });
  // Whatever the umask: the sandbox is nobody here.
  for (const folder of [scratch, root]) await chmod(folder, 0o755);
  await mkdir(files.layersDir, { recursive: true });
  try {
    const contents = await plan.fill(root, { ...context, scratch });
    context.progress({ message: 'packing', fraction: 1 });
    const packed = path.join(scratch, 'layer.erofs');
    await packErofs(root, packed, plan, sandbox, signal);
    if (sandbox.confined && plan.devices !== undefined) await placeDevices(packed, plan.devices);
    const record: Layer = {
      name: plan.name,
      id: plan.id,
      file: files.layerFile(plan.name, plan.id),
      sha256: await sha256File(packed, signal),
      bytes: (await stat(packed)).size,
      created: new Date().toISOString(),
      contents,
    };
    await rename(packed, path.join(cacheDir, record.file));
    await replaceFile(files.layerRecord(plan.name, plan.id), `${JSON.stringify(record, null, 2)}\n`);
    return record;
  } catch (error) {
    const full =
      (error as NodeJS.ErrnoException).code === 'ENOSPC' ||
      PolydevError.from(error).lines.some((line) => line.includes('No space left'));
    if (full)
      throw new PolydevError(
        'host_out_of_space',
        `no space left below ${cacheDir} while building the ${plan.name} layer`,
        { cause: error },
      );
    throw error;
  } finally {
    await sandbox.remove(scratch);
  }
}

/** Version field of a package.json. */
export async function packageVersion(file: string): Promise<string> {
  const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
  const version =
    parsed !== null && typeof parsed === 'object' && 'version' in parsed ? parsed.version : undefined;
  if (typeof version !== 'string') throw new PolydevError('image_build_failed', `${file} names no version`);
  return version;
}

/**
 * Gives a tree that this process staged the modes it must have in the image, whatever the umask of the checkout or of the
 * builder was: directories and executables 755, other files 644. For layers without special modes only.
 */
export async function normaliseModes(root: string): Promise<void> {
  await chmod(root, 0o755);
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name);
    if (entry.isSymbolicLink()) continue;
    const executable = entry.isDirectory() || ((await stat(file)).mode & 0o111) !== 0;
    await chmod(file, executable ? 0o755 : 0o644);
  }
}

/** The same for a tree that was staged in `sandbox`. */
export async function normaliseModesIn(sandbox: Sandbox, root: string, signal: AbortSignal): Promise<void> {
  const executable = ['(', '-type', 'd', '-o', '-perm', '/111', ')', '-exec', 'chmod', '755', '{}', '+'];
  const other = ['-o', '-exec', 'chmod', '644', '{}', '+'];
  await sandbox.run(['find', root, '!', '-type', 'l', '(', ...executable, ...other, ')'], {
    what: 'setting modes',
    deadline: 120_000,
    signal,
  });
}
