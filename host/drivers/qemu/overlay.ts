/**
 * The private disk of a machine that is a copy: an empty qcow2 file over the disk of the one it was copied from. It takes what the
 * machine writes and nothing else. The file says nothing of what lies below it: the hypervisor is told (args.ts).
 */
import { chownSync, closeSync, existsSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { link, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { diskPath } from '../vm/disk.ts';

/** The disk below, beside the private one: a hard link, so that it is there as long as somebody needs it. */
export const basePath = (folder: string): string => join(folder, 'disk.base.img');

export const isOverlay = (folder: string): boolean => existsSync(basePath(folder));

/** The file system's own blocks are as large: no write has to be completed with what lies below. */
const CLUSTER_BITS = 12;
const CLUSTER = 1 << CLUSTER_BITS;

/**
 * An empty qcow2 image (version 3) of a disk of `bytes`: header, a table of reference counts with one block of them, and the first
 * table of addresses, all zero. Facts: QEMU's docs/interop/qcow2.txt.
 */
export function emptyOverlay(bytes: number): Buffer {
  const entries = Math.ceil(bytes / (CLUSTER * (CLUSTER / 8)));
  const tableClusters = Math.ceil((entries * 8) / CLUSTER);
  const [refcounts, refcountBlock, table] = [CLUSTER, 2 * CLUSTER, 3 * CLUSTER];
  const clusters = 3 + tableClusters;
  const image = Buffer.alloc(clusters * CLUSTER);
  image.write('QFI\xfb', 0, 'latin1');
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(CLUSTER_BITS, 20);
  image.writeBigUInt64BE(BigInt(bytes), 24);
  image.writeUInt32BE(entries, 36);
  image.writeBigUInt64BE(BigInt(table), 40);
  image.writeBigUInt64BE(BigInt(refcounts), 48);
  image.writeUInt32BE(1, 56);
  image.writeUInt32BE(4, 96); // 16 bits for each count
  image.writeUInt32BE(104, 100); // length of the header; what follows is zero: no extension
  image.writeBigUInt64BE(BigInt(refcountBlock), refcounts);
  for (let cluster = 0; cluster < clusters; cluster++) image.writeUInt16BE(1, refcountBlock + 2 * cluster);
  return image;
}

/** Makes the private disk of a copy in `folder` over the file `base`, of `bytes`. `owner` is the only one who may read it. */
export async function makeOverlay(folder: string, base: string, bytes: number, owner: number): Promise<void> {
  await rm(basePath(folder), { force: true });
  await link(base, basePath(folder));
  const draft = join(folder, '.disk.img.tmp');
  await rm(draft, { force: true });
  const file = openSync(draft, 'wx', 0o600);
  try {
    const image = emptyOverlay(bytes);
    ftruncateSync(file, image.length);
    for (let at = 0; at < image.length; at += CLUSTER) {
      const cluster = image.subarray(at, at + CLUSTER);
      if (cluster.some((byte) => byte !== 0)) writeSync(file, cluster, 0, CLUSTER, at);
    }
  } finally {
    closeSync(file);
  }
  chownSync(draft, owner, owner);
  await rename(draft, diskPath(folder));
}

export const removeBase = (folder: string): Promise<void> => rm(basePath(folder), { force: true });
