/** A machine's root: the image's layers, shared and read-only, owners shifted, below its own writable layer. */
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { MS_NODEV, MS_NOSUID, mount, mountIdmapped, unmount } from '../../system/syscalls.ts';
import { unmountElsewhere } from './disk.ts';

export interface RootfsPlan {
  /** Mount points of the layers, top first. */
  layers: readonly string[];
  /** Folder on the machine's private disk; `upper` and `work` are made in it. */
  diskFolder: string;
  /** Folder for mount points, on a path that every user may pass through. */
  runFolder: string;
  userNamespace: number;
  firstId: number;
  /** Nobody needs the disk after a crash: skip waiting for it to be written. */
  volatile: boolean;
}

const rootOf = (runFolder: string): string => join(runFolder, 'root');
const layerOf = (runFolder: string, index: number): string => join(runFolder, `layer${index}`);
/** More than any image has; unmountRootfs looks at all of them. */
const MAX_LAYERS = 8;

/** Mounts it and returns its path. Throws SyscallError. unmountRootfs undoes it at any point. */
export function mountRootfs(plan: RootfsPlan): string {
  const { layers, diskFolder, runFolder, firstId } = plan;
  if (layers.length > MAX_LAYERS) throw new Error(`an image of ${layers.length} layers`);
  const root = rootOf(runFolder);
  const upper = join(diskFolder, 'upper');
  const work = join(diskFolder, 'work');
  mkdirSync(root, { recursive: true });
  for (const folder of [upper, work]) {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    chownSync(folder, firstId, firstId);
  }
  const lower = layers.map((layer, index) => {
    const target = layerOf(runFolder, index);
    mkdirSync(target, { recursive: true });
    mountIdmapped(layer, target, plan.userNamespace);
    return target;
  });
  // Paths are ours and hold neither comma nor colon.
  const options = [`lowerdir=${lower.join(':')}`, `upperdir=${upper}`, `workdir=${work}`];
  if (plan.volatile) options.push('volatile');
  mount('overlay', root, 'overlay', MS_NODEV | MS_NOSUID, options.join(','));
  // The overlay holds its layers itself: only its own mount stays visible.
  lower.forEach(unmount);
  return root;
}

export async function unmountRootfs(runFolder: string): Promise<void> {
  await unmountElsewhere(rootOf(runFolder));
  for (let index = 0; index < MAX_LAYERS; index++) while (unmount(layerOf(runFolder, index)));
}
