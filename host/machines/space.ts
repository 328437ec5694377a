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

/** Throws `host_out_of_space`. */
export async function checkSpace(path: string): Promise<void> {
  const { available } = await diskSpace(path);
  if (available >= LOW_DISK_MIB) return;
  throw new PolydevError(
    'host_out_of_space',
    `only ${available} MiB are free under the data directory; a machine starts with ${LOW_DISK_MIB} MiB at least`,
  );
}
