/**
 * The image cache of a host:
 *
 *   layers/<name>-<id>.erofs, .json   finished layers and their records
 *   images/<imageId>.json             manifests of verified images
 *   current                           id of the image new machines start from
 *   tmp/, debs/, build.lock           of builds (see build.ts)
 *
 * Layers are mounted once each, shared by all machines: `<runDir>/layers/<layer id>`, read-only.
 */
import { mkdir, readdir, readFile, rm, rmdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import { ImageId } from '../../protocol/ids.ts';
import type { BaseSettings } from './base.ts';
import { planImage } from './build.ts';
import { takeLock } from './lock.ts';
import { cacheFiles, ImageManifest, readRecord, replaceFile } from './manifest.ts';
import { mountPointsBelow } from './mounts.ts';
import { run } from './run.ts';

/** Where layers are mounted unless told otherwise. */
export const DEFAULT_RUN_DIR = '/run/polydev';

export interface ImageStore {
  /** The current image; undefined before the first build. */
  current(): Promise<ImageManifest | undefined>;
  get(id: string): Promise<ImageManifest | undefined>;
  /** All verified images, newest first. */
  list(): Promise<ImageManifest[]>;
  /** Makes an image current. Throws `image_missing` when it, or the file of one of its layers, is not there whole. */
  use(id: string): Promise<ImageManifest>;
  /** The id that the recipe of `checkout` gives, without building anything. */
  expected(checkout: string, settings?: BaseSettings): Promise<ImageId>;
  /** Mounts the layers of an image where they are not mounted yet. Returns their mount points, TOP FIRST. */
  mount(id: string): Promise<{ layers: string[] }>;
  /** Files of the layers of an image, TOP FIRST. Throws `image_missing`. */
  layerFiles(id: string): Promise<string[]>;
  /** Unmounts every layer below the run directory. Throws `conflict` naming those still in use. */
  unmountAll(): Promise<void>;
  /** Removes images that are neither current, nor in `keep`, nor mounted, and layers no image needs. Returns file names. */
  prune(keep?: readonly string[]): Promise<string[]>;
}

/** Opens the image cache in `cacheDir` (created by the first build). `runDir` must be on a file system of this boot. */
export function openImageStore(cacheDir: string, options: { runDir?: string } = {}): ImageStore {
  const files = cacheFiles(cacheDir);
  const mountsDir = path.join(options.runDir ?? DEFAULT_RUN_DIR, 'layers');
  const deadline = 30_000;

  const get = async (id: string): Promise<ImageManifest | undefined> =>
    ImageId.safeParse(id).success ? readRecord(files.manifest(id), ImageManifest) : undefined;

  const currentId = async (): Promise<string | undefined> => {
    try {
      return (await readFile(files.current, 'utf8')).trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  };

  const complete = async (id: string): Promise<ImageManifest> => {
    const manifest = await get(id);
    if (manifest === undefined)
      throw new PolydevError('image_missing', `there is no image ${id} in ${cacheDir}`);
    for (const layer of manifest.layers) {
      const size = await stat(path.join(cacheDir, layer.file)).then(
        (found) => found.size,
        () => undefined,
      );
      if (size !== layer.bytes) {
        const state = size === undefined ? 'is missing' : `has ${size} bytes instead of ${layer.bytes}`;
        throw new PolydevError('image_missing', `${path.join(cacheDir, layer.file)} of image ${id} ${state}`);
      }
    }
    return manifest;
  };

  const list = async (): Promise<ImageManifest[]> => {
    const names = await readdir(files.imagesDir).catch(() => []);
    const found = await Promise.all(
      names.filter((n) => n.endsWith('.json')).map((n) => get(path.basename(n, '.json'))),
    );
    return found.filter((each) => each !== undefined).sort((a, b) => (a.created < b.created ? 1 : -1));
  };

  // Two machines starting at once must not mount one layer twice.
  let mounting: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const next = mounting.then(work, work);
    mounting = next.catch(() => undefined);
    return next;
  };

  const mountLayers = async (id: string): Promise<{ layers: string[] }> => {
    const manifest = await complete(id);
    const mounted = new Set(await mountPointsBelow(mountsDir));
    const points: string[] = [];
    for (const layer of manifest.layers) {
      const point = path.join(mountsDir, layer.id);
      if (!mounted.has(point)) {
        await mkdir(point, { recursive: true, mode: 0o755 });
        const argv = [
          'mount',
          '-t',
          'erofs',
          '-o',
          'ro,loop,nodev',
          path.join(cacheDir, layer.file),
          point,
        ] as const;
        await run([...argv], {
          what: `mounting ${layer.file}`,
          deadline,
          signal: AbortSignal.timeout(deadline),
        });
      }
      points.unshift(point);
    }
    return { layers: points };
  };

  /** A machine that has just ended may hold its overlay for a moment longer; 20 tries, 0.1 s apart. */
  const unmount = async (point: string): Promise<boolean> => {
    for (let attempt = 0; attempt < 20; attempt++) {
      try {
        await run(['umount', point], { what: 'unmounting', deadline, signal: AbortSignal.timeout(deadline) });
        await rmdir(point);
        return true;
      } catch {
        if (!(await mountPointsBelow(mountsDir)).includes(point)) return true;
        await sleep(100);
      }
    }
    return false;
  };

  return {
    get,
    list,
    async current() {
      const id = await currentId();
      return id === undefined ? undefined : get(id);
    },
    async use(id) {
      const manifest = await complete(id);
      if ((await currentId()) !== id) await replaceFile(files.current, `${id}\n`);
      return manifest;
    },
    async expected(checkout, settings) {
      return (await planImage(checkout, settings)).id;
    },
    mount: (id) => inTurn(() => mountLayers(id)),
    async layerFiles(id) {
      const { layers } = await complete(id);
      return layers.map((layer) => path.join(cacheDir, layer.file)).reverse();
    },
    unmountAll: () =>
      inTurn(async () => {
        const busy: string[] = [];
        for (const point of await mountPointsBelow(mountsDir)) if (!(await unmount(point))) busy.push(point);
        if (busy.length > 0) throw new PolydevError('conflict', `still in use: ${busy.join(', ')}`);
      }),
    prune: (keep = []) =>
      inTurn(async () => {
        // A build that runs may be about to use a layer that no image names yet or any more.
        await using _lock = await takeLock(files.lock, { signal: AbortSignal.timeout(deadline) });
        const images = await list();
        const mounted = new Set((await mountPointsBelow(mountsDir)).map((point) => path.basename(point)));
        const current = await currentId();
        const stays = (image: ImageManifest): boolean =>
          image.id === current ||
          keep.includes(image.id) ||
          image.layers.every((layer) => mounted.has(layer.id));
        const needed = new Set(
          images.filter(stays).flatMap((image) => image.layers.map((layer) => layer.file)),
        );
        const removed: string[] = [];
        for (const image of images.filter((each) => !stays(each))) {
          // The manifest goes first: an image that is listed is always whole.
          await rm(files.manifest(image.id), { force: true });
          removed.push(`images/${image.id}.json`);
          for (const layer of image.layers) {
            if (needed.has(layer.file) || mounted.has(layer.id) || removed.includes(layer.file)) continue;
            await rm(files.layerRecord(layer.name, layer.id), { force: true });
            await rm(path.join(cacheDir, layer.file), { force: true });
            removed.push(layer.file);
          }
        }
        return removed;
      }),
  };
}
