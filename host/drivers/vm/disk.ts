/** A machine's private disk: a sparse file with an ext4 that takes space only for what was written. */
import { chmodSync, chownSync, closeSync, ftruncateSync, openSync, statSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DEFAULT_DISK_MIB, type MachineSpec } from '../../../protocol/machine.ts';
import { run, unprivileged } from '../../system/command.ts';

const MIB = 1024 * 1024;

export const diskPath = (folder: string): string => join(folder, 'disk.img');

/** Host id of a disk's owner, or undefined when there is no disk yet. */
export function diskOwner(folder: string): number | undefined {
  return statSync(diskPath(folder), { throwIfNoEntry: false })?.uid;
}

/** Makes the disk unless it is there; one that is there keeps its size. `owner` is the only one who may read it. */
export async function ensureDisk(
  folder: string,
  { kind, limits }: Pick<MachineSpec, 'kind' | 'limits'>,
  owner: number,
  signal: AbortSignal,
): Promise<void> {
  if (diskOwner(folder) !== undefined) return;
  const sizeMiB = limits.diskMiB ?? DEFAULT_DISK_MIB[kind];
  const draft = join(folder, '.disk.img.tmp');
  await rm(draft, { force: true });
  const file = openSync(draft, 'wx', 0o600);
  try {
    ftruncateSync(file, sizeMiB * MIB);
  } finally {
    closeSync(file);
  }
  // mkfs chooses the journal of a small disk itself: a fixed one would not fit.
  const journal = sizeMiB < 512 ? [] : ['-J', 'size=16'];
  const features = kind === 'browser' ? ['-O', '^has_journal'] : journal;
  await run(
    [
      ...['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096', ...features, '-m', '0', '-i', '65536'],
      ...['-E', 'lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0', draft],
    ],
    { signal, timeoutMs: 30_000, failure: 'machine_start_failed' },
  );
  chownSync(draft, owner, owner);
  await rename(draft, diskPath(folder));
}

/** Makes the disk as a copy of the file `from`; what was never written takes no space, and file systems that can share the rest. */
export async function copyDisk(
  folder: string,
  from: string,
  owner: number,
  signal: AbortSignal,
): Promise<void> {
  const draft = join(folder, '.disk.img.tmp');
  await rm(draft, { force: true });
  await run(['cp', '--sparse=always', '--reflink=auto', from, draft], {
    ...{ signal, timeoutMs: 30_000, failure: 'machine_start_failed' },
  });
  chmodSync(draft, 0o600);
  chownSync(draft, owner, owner);
  await rename(draft, diskPath(folder));
}

/**
 * Room on the disk in KiB, as its file system has written it down: seconds old while the guest runs. Read as the disk's owner,
 * since the guest may have written anything there. `open`: for a disk that is not one file. Null when it cannot be read.
 */
export async function diskSpace(
  folder: string,
  open: (folder: string) => number | Promise<number> = (of) => openSync(diskPath(of), 'r'),
): Promise<{ total: number; available: number } | null> {
  const owner = diskOwner(folder);
  if (owner === undefined) return null;
  const file = await open(folder);
  try {
    const argv = [...unprivileged(owner), 'dumpe2fs', '-h', '/dev/fd/3'];
    const said = await run(argv, { timeoutMs: 5000, inherit: [file] });
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)$`, 'm').exec(said)?.[1]);
    const kib = field('Block size') / 1024;
    const [total, available] = [field('Block count') * kib, field('Free blocks') * kib];
    return Number.isNaN(total + available) ? null : { total, available };
  } catch {
    return null;
  } finally {
    closeSync(file);
  }
}

export const removeDisk = (folder: string): Promise<void> => rm(diskPath(folder), { force: true });
