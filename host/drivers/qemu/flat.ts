/**
 * The disk of a copy as one file again, for who wants to read what its guest wrote: what lies below, and over it what the overlay
 * holds. The overlay is what a hypervisor wrote that may have been broken into: its tables are not trusted, and bound.
 */
import { chownSync, closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../system/command.ts';
import { diskOwner, diskPath } from '../vm/disk.ts';
import { basePath } from './overlay.ts';

const CLUSTER = 4096;
const ENTRIES = CLUSTER / 8;
/** Addresses in both tables; the other bits are flags (QEMU's docs/interop/qcow2.txt). */
const ADDRESS = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;
/** Of what lies below, and of the overlay: more is not copied to be read. */
const MOST_BYTES = 512 * 1024 * 1024;
/** Tables of addresses that are looked at: those of a disk of 64 GiB. */
const MOST_TABLES = 32_768;

/** Where a file system says what it holds; the room on a disk that is full is read from there, too. */
const FRONT_BYTES = 1024 * 1024;

/** As openFlat, with what the guest wrote at the disk's front alone. */
export const openFront = (folder: string): Promise<number> => openFlat(folder, FRONT_BYTES);

/**
 * The file's descriptor, open for both ways; it has no name and belongs to the owner of the disk. `upTo`: bytes from where on what the guest wrote
 * is left out. Throws an Error.
 */
export async function openFlat(folder: string, upTo = Number.POSITIVE_INFINITY): Promise<number> {
  const below = basePath(folder);
  if (statSync(below).blocks * 512 > MOST_BYTES)
    throw new Error('the disk below that of the copy is too large');
  const path = join(folder, '.flat.tmp');
  rmSync(path, { force: true });
  await run(['cp', '--sparse=always', '--reflink=auto', below, path], { timeoutMs: 30_000 });
  const owner = diskOwner(folder) ?? 0;
  chownSync(path, owner, owner);
  const flat = openSync(path, 'r+');
  rmSync(path);
  const overlay = openSync(diskPath(folder), 'r');
  try {
    layOver(overlay, flat, Math.min(statSync(below).size, upTo));
    return flat;
  } catch (error) {
    closeSync(flat);
    throw error;
  } finally {
    closeSync(overlay);
  }
}

/** Zeros where there is nothing. */
function read(file: number, at: number): Buffer {
  const bytes = Buffer.alloc(CLUSTER);
  if (!Number.isSafeInteger(at)) return bytes;
  readSync(file, bytes, 0, CLUSTER, at);
  return bytes;
}

/** Writes every cluster that the overlay holds of the first `size` bytes to its place in `flat`. */
function layOver(overlay: number, flat: number, size: number): void {
  const header = read(overlay, 0);
  if (header.toString('latin1', 0, 4) !== 'QFI\xfb' || header.readUInt32BE(20) !== 12)
    throw new Error('the disk of the copy is no overlay');
  const tables = Math.min(Math.ceil(size / (CLUSTER * ENTRIES)), header.readUInt32BE(36), MOST_TABLES);
  const first = Number(header.readBigUInt64BE(40));
  let left = MOST_BYTES / CLUSTER;
  for (let table = 0; table < tables; table++) {
    const entry = read(overlay, first + table * 8).readBigUInt64BE(0);
    const at = Number(entry & ADDRESS);
    if (at === 0) continue;
    const addresses = read(overlay, at);
    for (let index = 0; index < ENTRIES; index++) {
      const address = addresses.readBigUInt64BE(index * 8);
      const from = Number(address & ADDRESS);
      const to = (table * ENTRIES + index) * CLUSTER;
      const empty = (address & ZERO) !== 0n;
      if ((!empty && from === 0) || (address & COMPRESSED) !== 0n || to + CLUSTER > size) continue;
      left -= 1;
      if (left < 0) throw new Error('the copy has written too much');
      writeSync(flat, empty ? Buffer.alloc(CLUSTER) : read(overlay, from), 0, CLUSTER, to);
    }
  }
}
