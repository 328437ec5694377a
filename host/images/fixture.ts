/** For the tests of this folder: a checkout with a small agent, and an image cache with small layers. */
import { execFileSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { imageId, layerId, sha256File } from './identity.ts';
import { packErofs } from './layer.ts';
import { cacheFiles, type ImageManifest, type Layer, type LayerName, replaceFile } from './manifest.ts';
import { unconfined } from './sandbox.ts';

const REAL_CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));

/** Whether a command can be found; for skipping with its name. */
export function hasCommand(name: string): boolean {
  try {
    execFileSync('which', [name], { stdio: 'ignore', timeout: 5_000 });
    return true;
  } catch {
    return false;
  }
}

export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string;
}

export async function temporaryDirectory(): Promise<TemporaryDirectory> {
  const directory = await mkdtemp(path.join(tmpdir(), 'polydev-images-'));
  return { path: directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
}

/** A checkout in `directory`: the real recipe and packages, and `agent` as guest/main.ts. */
export async function makeCheckout(directory: string, agent: string): Promise<string> {
  await mkdir(path.join(directory, 'guest'), { recursive: true });
  await cp(path.join(REAL_CHECKOUT, 'images'), path.join(directory, 'images'), {
    recursive: true,
    verbatimSymlinks: true,
  });
  await cp(path.join(REAL_CHECKOUT, 'package.json'), path.join(directory, 'package.json'));
  await symlink(path.join(REAL_CHECKOUT, 'node_modules'), path.join(directory, 'node_modules'));
  await writeFile(path.join(directory, 'guest/main.ts'), agent);
  return directory;
}

/** Puts a small, real erofs layer with one file in the cache. */
export async function makeLayer(cacheDir: string, name: LayerName, text: string): Promise<Layer> {
  const files = cacheFiles(cacheDir);
  const id = layerId(name, text);
  const root = path.join(files.tmpDir, id);
  await mkdir(root, { recursive: true });
  await mkdir(files.layersDir, { recursive: true });
  await writeFile(path.join(root, name), text);
  // The mount points that every root has.
  for (const point of ['proc', 'dev', 'run', 'tmp', 'etc', 'home', 'root', 'opt/polydev/agent']) {
    await mkdir(path.join(root, point), { recursive: true });
  }
  const file = files.layerFile(name, id);
  await packErofs(root, path.join(cacheDir, file), { id }, unconfined, AbortSignal.timeout(60_000));
  const bytes = (await stat(path.join(cacheDir, file))).size;
  const layer: Layer = {
    name,
    id,
    file,
    sha256: await sha256File(path.join(cacheDir, file)),
    bytes,
    created: new Date().toISOString(),
    contents: {},
  };
  await replaceFile(files.layerRecord(name, id), JSON.stringify(layer));
  return layer;
}

/** Writes the manifest of an image, as a build does after verification. */
export async function makeImage(
  cacheDir: string,
  layers: Layer[],
  created = new Date(),
): Promise<ImageManifest> {
  const files = cacheFiles(cacheDir);
  await mkdir(files.imagesDir, { recursive: true });
  const id = imageId(layers.map((layer) => layer.id));
  const manifest: ImageManifest = {
    schema: 1,
    id,
    layers,
    created: created.toISOString(),
    verified: created.toISOString(),
    booted: { at: created.toISOString(), driver: 'namespace', ms: 1, checkpoints: ['agent'] },
  };
  await replaceFile(files.manifest(id), JSON.stringify(manifest));
  return manifest;
}
