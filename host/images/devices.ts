/**
 * The device nodes of the base layer. Only the host's root may make device nodes, so a confined build makes a FIFO for each and this
 * file turns the FIFOs into devices in the packed layer: the bytes are those of a layer packed from real nodes.
 * Format: fs/erofs/erofs_fs.h of Linux; numbers: its Documentation/admin-guide/devices.txt.
 */
import { open } from 'node:fs/promises';
import path from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';
import type { Sandbox } from './sandbox.ts';

/** Character devices: name below /dev -> major and minor number. All have mode 666, as mmdebstrap makes them. */
export type Devices = Readonly<Record<string, readonly [major: number, minor: number]>>;

export const DEVICES: Devices = {
  console: [5, 1],
  full: [1, 7],
  null: [1, 3],
  ptmx: [5, 2],
  random: [1, 8],
  tty: [5, 0],
  urandom: [1, 9],
  zero: [1, 5],
};

const LINKS = {
  fd: '/proc/self/fd',
  stdin: '/proc/self/fd/0',
  stdout: '/proc/self/fd/1',
  stderr: '/proc/self/fd/2',
};

/** Makes what mmdebstrap makes below /dev where it may make device nodes; FIFOs instead of the devices. */
export async function makePlaceholders(root: string, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const dev = path.join(root, 'dev');
  const at = (name: string): string => path.join(dev, name);
  const options = { what: 'making /dev', deadline: 30_000, signal };
  await sandbox.run(['mkfifo', '--mode=666', '--', ...Object.keys(DEVICES).map(at)], options);
  await sandbox.run(['mkdir', '--mode=755', '--', at('pts'), at('shm')], options);
  for (const [name, target] of Object.entries(LINKS)) {
    await sandbox.run(['ln', '--symbolic', '--', target, at(name)], options);
  }
}

const SUPER = 1024;
const MAGIC = 0xe0f5e1e2;
const CHECKSUM_FEATURE = 0x1;
const TYPE = { character: 3, fifo: 5 } as const;
const MODE = { mask: 0o170000, character: 0o020000, fifo: 0o010000 } as const;
const LAYOUT = { plain: 0, inline: 2 } as const;

const damaged = (why: string): PolydevError =>
  new PolydevError('image_build_failed', `the device nodes cannot be put into the layer: ${why}`);

/** A number as the kernel encodes devices: 12 bits of major, 20 of minor, the minor's low 8 bits first. */
const encodeDevice = ([major, minor]: readonly [number, number]): number =>
  (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);

/** CRC-32C without the usual inversion at the end, as erofs keeps it. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f63b78 : 0);
  }
  return crc >>> 0;
}

/** Random access to a packed layer. */
interface Pack {
  read(at: number, length: number): Promise<Buffer>;
  write(at: number, data: Uint8Array): Promise<void>;
}

interface Folder {
  /** Where a name's 12 bytes in the folder are, its inode, and its type. */
  readonly entries: ReadonlyMap<string, { at: number; inode: number; type: number }>;
}

/**
 * Turns the FIFOs `devices` below /dev of the erofs file `file` into character devices, in place. Throws `image_build_failed` if one of
 * them is not there as a FIFO; the file is useless then.
 */
export async function placeDevices(file: string, devices: Devices): Promise<void> {
  await using handle = await open(file, 'r+');
  const pack: Pack = {
    async read(at, length) {
      const buffer = Buffer.alloc(length);
      const { bytesRead } = await handle.read(buffer, 0, length, at);
      if (bytesRead !== length) throw damaged(`it ends within byte ${at + length}`);
      return buffer;
    },
    async write(at, data) {
      await handle.write(data, 0, data.length, at);
    },
  };
  const superblock = await pack.read(SUPER, 128);
  if (superblock.readUInt32LE(0) !== MAGIC) throw damaged('it is no erofs file');
  const blockSize = 2 ** superblock.readUInt8(12);
  const inodes = superblock.readUInt32LE(40) * blockSize;
  const inodeAt = (id: number): number => inodes + id * 32;
  const top = await readFolder(pack, inodeAt(superblock.readUInt16LE(14)), blockSize, inodeAt);
  const dev = top.entries.get('dev');
  if (dev === undefined) throw damaged('there is no /dev');
  const { entries } = await readFolder(pack, dev.inode, blockSize, inodeAt);
  for (const [name, numbers] of Object.entries(devices)) {
    const entry = entries.get(name);
    const inode = entry === undefined ? undefined : await pack.read(entry.inode, 32);
    const mode = inode?.readUInt16LE(4) ?? 0;
    if (entry?.type !== TYPE.fifo || inode === undefined || (mode & MODE.mask) !== MODE.fifo) {
      throw damaged(`/dev/${name} is not the FIFO that was made`);
    }
    inode.writeUInt16LE((mode & ~MODE.mask) | MODE.character, 4);
    inode.writeUInt32LE(encodeDevice(numbers), 16);
    await pack.write(entry.inode, inode);
    await pack.write(entry.at + 10, Buffer.from([TYPE.character]));
  }
  if ((superblock.readUInt32LE(8) & CHECKSUM_FEATURE) !== 0) await writeChecksum(pack, blockSize);
}

/** The checksum covers the rest of the superblock's block, itself counted as 0. */
async function writeChecksum(pack: Pack, blockSize: number): Promise<void> {
  const block = await pack.read(SUPER, blockSize - SUPER);
  block.writeUInt32LE(0, 4);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32LE(crc32c(block));
  await pack.write(SUPER + 4, checksum);
}

async function readFolder(
  pack: Pack,
  at: number,
  blockSize: number,
  inodeAt: (id: number) => number,
): Promise<Folder> {
  const inode = await pack.read(at, 64);
  const format = inode.readUInt16LE(0);
  const extended = (format & 1) === 1;
  const layout = (format >> 1) & 7;
  if (layout !== LAYOUT.plain && layout !== LAYOUT.inline) throw damaged(`a folder has layout ${layout}`);
  const size = extended ? Number(inode.readBigUInt64LE(8)) : inode.readUInt32LE(8);
  const attributes = inode.readUInt16LE(2);
  const tail = at + (extended ? 64 : 32) + (attributes === 0 ? 0 : 12 + 4 * (attributes - 1));
  const blocks = inode.readUInt32LE(16) * blockSize;
  const entries = new Map<string, { at: number; inode: number; type: number }>();
  for (let offset = 0; offset < size; offset += blockSize) {
    const length = Math.min(blockSize, size - offset);
    // The last block that is not full stands behind the inode.
    const start = layout === LAYOUT.inline && length < blockSize ? tail : blocks + offset;
    const block = await pack.read(start, length);
    const count = block.readUInt16LE(8) / 12;
    for (let index = 0; index < count; index++) {
      const from = index * 12;
      const nameFrom = block.readUInt16LE(from + 8);
      const nameTo = index + 1 < count ? block.readUInt16LE(from + 20) : length;
      const name = block.subarray(nameFrom, nameTo).toString('utf8').replace(/\0+$/, '');
      const inode = inodeAt(Number(block.readBigUInt64LE(from)));
      entries.set(name, { at: start + from, inode, type: block.readUInt8(from + 10) });
    }
  }
  return { entries };
}
