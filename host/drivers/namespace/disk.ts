/**
 * A machine's private disk: an ext4 file system of a fixed size in a sparse file, so that a guest that fills its disk
 * fills nothing else. Upper and work folder of the machine's overlay are in it.
 */
import { existsSync, statSync } from 'node:fs';
import { chmod, chown, mkdir, open, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../../system/command.ts';
import { loopDevices } from '../../system/loops.ts';
import { mountPoints } from '../../system/syscalls.ts';

const MIB = 1024 * 1024;
/** What a full writeback may take. */
const UNMOUNT_TIMEOUT_MS = 60_000;
const DETACH_TIMEOUT_MS = 1000;

export interface DiskPlan {
  /** The machine's folder. */
  folder: string;
  sizeMiB: number;
  /** First host id of the machine's range. */
  firstId: number;
  /** Nobody needs it after a crash of the host: no journal, no waiting for the medium. */
  volatile: boolean;
}

const imageOf = (folder: string): string => join(folder, 'disk.ext4');
const mountOf = (folder: string): string => join(folder, 'disk');
/** Machines made before disks had a size have their upper layer in their folder itself. */
const unsized = (folder: string): boolean => existsSync(join(folder, 'upper'));

/** First host id of the machine that the disk in `folder` belongs to, or undefined when there is no disk yet. */
export function diskOwner(folder: string): number | undefined {
  // As the group: root alone may open the file, but it tells the owner also while it is not mounted.
  const image = statSync(imageOf(folder), { throwIfNoEntry: false });
  return image?.gid ?? statSync(join(folder, 'upper'), { throwIfNoEntry: false })?.uid;
}

/**
 * Mounts the disk, making it first when there is none; a disk that is there keeps its size. Returns the folder for upper
 * and work. Throws `machine_start_failed`. closeDisk undoes it at any point.
 */
export async function openDisk(plan: DiskPlan, signal: AbortSignal): Promise<string> {
  const { folder, volatile } = plan;
  if (unsized(folder)) return folder;
  if (!existsSync(imageOf(folder))) await makeDisk(plan, signal);
  await mkdir(mountOf(folder), { recursive: true, mode: 0o700 });
  // The device that `loop` takes is given back by the kernel with its last mount, whoever is killed. On a disk that is
  // kept, what the guest removes is free on the host again; writing zeroes to inode tables would only fill the file.
  const options = ['loop', 'nodev', 'nosuid', 'noatime', 'noinit_itable', 'errors=remount-ro'];
  options.push(volatile ? 'nobarrier' : 'discard');
  await run(['mount', '-t', 'ext4', '-o', options.join(','), imageOf(folder), mountOf(folder)], {
    signal,
    failure: 'machine_start_failed',
  });
  return mountOf(folder);
}

async function makeDisk(
  { folder, sizeMiB, firstId, volatile }: DiskPlan,
  signal: AbortSignal,
): Promise<void> {
  const draft = `${imageOf(folder)}.new`;
  await rm(draft, { force: true });
  const file = await open(draft, 'wx', 0o600);
  try {
    await file.truncate(sizeMiB * MIB);
  } finally {
    await file.close();
  }
  // mke2fs chooses the journal of a small disk itself: a fixed one would not fit.
  const journal = volatile ? ['-O', '^has_journal'] : sizeMiB < 512 ? [] : ['-J', 'size=16'];
  await run(
    [
      ...['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096', '-m', '0', ...journal],
      ...['-E', 'nodiscard,lazy_itable_init=1,lazy_journal_init=1', draft],
    ],
    { signal, failure: 'machine_start_failed' },
  );
  await chown(draft, 0, firstId);
  await chmod(draft, 0o600);
  await rename(draft, imageOf(folder));
}

/** Unmounts it; with `remove`, it is gone for good. Idempotent. Throws when it is still mounted then. */
export async function closeDisk(folder: string, options: { remove: boolean }): Promise<void> {
  await unmountElsewhere(mountOf(folder));
  const image = imageOf(folder);
  if (existsSync(image)) await detached(image);
  if (!options.remove) return;
  await rm(image, { force: true });
  await rm(`${image}.new`, { force: true });
  // Never with what is in it: it would be somebody's mount.
  if (existsSync(mountOf(folder))) await rmdir(mountOf(folder));
  for (const name of ['upper', 'work']) await rm(join(folder, name), { recursive: true, force: true });
}

/**
 * Takes away every mount of `target`, busy or not, by a process of its own: the last user of a disk waits until all of it
 * is written, and this process must go on meanwhile.
 */
export async function unmountElsewhere(target: string): Promise<void> {
  for (const mounted of mountPoints().filter((point) => point.target === target)) {
    await run(['umount', '--lazy', mounted.target], { timeoutMs: UNMOUNT_TIMEOUT_MS });
  }
}

/** Waits for the kernel to give the device back: a machine that starts holds a copy of every mount for a moment. */
async function detached(image: string): Promise<void> {
  const end = performance.now() + DETACH_TIMEOUT_MS;
  // When somebody holds it longer, the device goes with them; a mount before that takes the same device again.
  while (performance.now() < end && loopDevices().some(({ file }) => file === image)) await sleep(5);
}
