/**
 * The image cache of a host:
 *
 *   layers/<name>-<id>.erofs, .json   finished layers and their records
 *   images/<imageId>.json             manifests of verified images
 *   users/<instance>                  link to the machines' folder of an installation: their disks need their images
 *   current                           id of the image new machines start from
 *   tmp/, debs/, build.lock           of builds (see build.ts)
 *
 * Layers are mounted once each, shared by all machines: `<runDir>/layers/<layer id>`, read-only.
 */
import { mkdir, readdir, readFile, rm, rmdir, stat, symlink } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { ImageId } from '../../protocol/ids.ts';
import type { BaseSettings } from './base.ts';
import { planImage } from './build.ts';
import { takeLock } from './lock.ts';
import { type BootRecord, cacheFiles, ImageManifest, readRecord, replaceFile } from './manifest.ts';
import { attachedFiles, mountPointsBelow } from './mounts.ts';
import { run } from './run.ts';

/** Where layers are mounted unless told otherwise. */
export const DEFAULT_RUN_DIR = '/run/polydev';

export interface ImageStore {
  /** The current image; undefined before the first build. */
  current(): Promise<ImageManifest | undefined>;
  get(id: string): Promise<ImageManifest | undefined>;
  /** Whether an image is here and has booted. */
  has(id: string): Promise<boolean>;
  /** All verified images, newest first. */
  list(): Promise<ImageManifest[]>;
  /**
   * Makes an image current. Throws `image_missing` when it, or the file of one of its layers, is not there whole,
   * `image_verification_failed` when it has not booted on this host.
   */
  use(id: string): Promise<ImageManifest>;
  /** Writes down that an image has booted here. Throws `image_missing`. */
  recordBoot(id: string, booted: BootRecord): Promise<ImageManifest>;
  /** Makes an installation known by the folder of its machines: the images of their disks are kept. */
  claim(instance: string, machinesFolder: string): Promise<void>;
  /** Takes the claim back when that installation has no machine any more. */
  unclaim(instance: string): Promise<void>;
  /** The id that the recipe of `checkout` gives, without building anything. */
  expected(checkout: string, settings?: BaseSettings): Promise<ImageId>;
  /** Mounts the layers of an image where they are not mounted yet. Returns their mount points, TOP FIRST. */
  mount(id: string): Promise<{ layers: string[] }>;
  /** Files of the layers of an image, TOP FIRST. Throws `image_missing`. */
  layerFiles(id: string): Promise<string[]>;
  /** Unmounts every layer below the run directory. Throws `conflict` naming those still in use. */
  unmountAll(): Promise<void>;
  /**
   * Removes images that are neither current, nor in `keep`, nor mounted, nor below the disk of a machine of any installation that has
   * claimed them; and layers no image needs. Returns the files and their bytes.
   */
  prune(keep?: readonly string[]): Promise<{ file: string; bytes: number }[]>;
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
    has: async (id) => (await get(id))?.booted !== undefined,
    async current() {
      const id = await currentId();
      return id === undefined ? undefined : get(id);
    },
    async use(id) {
      const manifest = await complete(id);
      if (manifest.booted === undefined) {
        throw new PolydevError(
          'image_verification_failed',
          `image ${id} has not booted on this host; ./polydev image use ${id} tries it first`,
        );
      }
      if ((await currentId()) !== id) await replaceFile(files.current, `${id}\n`);
      return manifest;
    },
    async recordBoot(id, booted) {
      const manifest = { ...(await complete(id)), booted };
      await replaceFile(files.manifest(id), `${JSON.stringify(manifest, null, 2)}\n`);
      return manifest;
    },
    async claim(instance, machinesFolder) {
      await mkdir(files.usersDir, { recursive: true });
      const link = path.join(files.usersDir, instance);
      await rm(link, { force: true });
      await symlink(machinesFolder, link);
    },
    async unclaim(instance) {
      const link = path.join(files.usersDir, instance);
      if ((await readdir(link).catch(() => [])).length === 0) await rm(link, { force: true });
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
        // Whoever mounted it: every host service has mount points of its own.
        const mounted = new Set(await attachedFiles());
        const inUse = (file: string): boolean => mounted.has(path.join(cacheDir, file));
        const current = await currentId();
        const used = await imagesOfMachines(files.usersDir);
        const stays = (image: ImageManifest): boolean =>
          image.id === current ||
          keep.includes(image.id) ||
          used.has(image.id) ||
          image.layers.every((layer) => inUse(layer.file));
        const needed = new Set(
          images.filter(stays).flatMap((image) => image.layers.map((layer) => layer.file)),
        );
        const removed: { file: string; bytes: number }[] = [];
        for (const image of images.filter((each) => !stays(each))) {
          // The manifest goes first: an image that is listed is always whole.
          await rm(files.manifest(image.id), { force: true });
          removed.push({ file: `images/${image.id}.json`, bytes: 0 });
        }
        // Also those of builds that did not get as far as an image.
        for (const name of await readdir(files.layersDir).catch(() => [])) {
          const file = path.join('layers', name);
          if (!/^[a-z]+-[0-9a-f]{16}\.erofs$/.test(name) || needed.has(file) || inUse(file)) continue;
          const { size: bytes } = await stat(path.join(cacheDir, file));
          await rm(path.join(cacheDir, file.replace(/erofs$/, 'json')), { force: true });
          await rm(path.join(cacheDir, file), { force: true });
          removed.push({ file, bytes });
        }
        return removed;
      }),
  };
}

/** Images that machines of any installation were made from. A claim whose folder is gone is dropped. */
async function imagesOfMachines(usersDir: string): Promise<Set<string>> {
  const used = new Set<string>();
  for (const instance of await readdir(usersDir).catch(() => [])) {
    const link = path.join(usersDir, instance);
    const machines = await readdir(link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      return undefined;
    });
    if (machines === undefined) await rm(link, { force: true });
    for (const machine of machines ?? []) {
      const record = await readRecord(path.join(link, machine, 'record.json'), MachineRecord);
      if (record !== undefined) used.add(record.image);
    }
  }
  return used;
}

/** The part of a machine's record that matters here. */
const MachineRecord = z.object({ image: ImageId });
