/** Free space under the data directory, in MiB. */
import { statfs } from 'node:fs/promises';
import { PolydevError } from '../../protocol/errors.ts';

/** Below this, no machine starts: what is left is for those that run, and for the database beside them. */
export const LOW_DISK_MIB = 1024;

const MIB = 1024 * 1024;

export async function diskSpace(path: string): Promise<{ total: number; available: number }> {
  const { blocks, bavail, bsize } = await statfs(path);
  return { total: Math.round((blocks * bsize) / MIB), available: Math.round((bavail * bsize) / MIB) };
}

/** Sizes of private disks, in MiB. */
export interface Promised {
  /** Of all machines that are here. */
  used: number;
  /** Of the one that wants to start. */
  wanted: number;
}

/** How much all private disks may be together when the file system is `totalMiB`. */
export const allowedMiB = (totalMiB: number, overcommit: number): number => Math.round(totalMiB * overcommit);

/** Throws `host_out_of_space` when too little is free, or when more is promised to machines than the factor allows. */
export async function checkSpace(
  path: string,
  overcommit: number,
  { used, wanted }: Promised,
): Promise<void> {
  const { available, total } = await diskSpace(path);
  if (available < LOW_DISK_MIB) {
    throw new PolydevError(
      'host_out_of_space',
      `only ${available} MiB are free under the data directory; a machine starts with ${LOW_DISK_MIB} MiB at least`,
    );
  }
  const allowed = allowedMiB(total, overcommit);
  if (used + wanted <= allowed) return;
  throw new PolydevError(
    'host_out_of_space',
    `the disks of the machines here are promised ${used} MiB; with ${wanted} MiB more it would be more than the ` +
      `${allowed} MiB that this host allows (${overcommit} times its ${total} MiB)`,
  );
}
