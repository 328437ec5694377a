import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diskPath } from '../vm/disk.ts';
import { openFlat, openFront } from './flat.ts';
import { makeOverlay } from './overlay.ts';

const CLUSTER = 4096;
const CLUSTERS = 1024;

// That QEMU writes what is read here is shown by a copy's journal (testkit/contracts/driver-copies.ts).
describe.skipIf(process.getuid?.() !== 0)('the disk of a copy as one file (needs root)', () => {
  let folder: string;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-flat-'));
    const base = join(folder, 'base');
    writeFileSync(base, Buffer.alloc(CLUSTERS * CLUSTER, 'b'));
    await makeOverlay(folder, base, CLUSTERS * CLUSTER, 12_345);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** Writes big-endian words of 64 bits into the overlay. */
  function put(at: number, ...words: bigint[]): void {
    const bytes = Buffer.alloc(words.length * 8);
    for (const [index, word] of words.entries()) bytes.writeBigUInt64BE(word, index * 8);
    const file = openSync(diskPath(folder), 'r+');
    writeSync(file, bytes, 0, bytes.length, at);
    closeSync(file);
  }
  function cluster(flat: number, index: number): string {
    const bytes = Buffer.alloc(CLUSTER);
    readSync(flat, bytes, 0, CLUSTER, index * CLUSTER);
    return [...new Set(bytes.toString('latin1'))].join('');
  }
  /** Of an overlay of this size: the first table is one cluster, the fourth; what follows is free. */
  const FIRST = 3 * CLUSTER;
  const [SECOND, DATA] = [4 * CLUSTER, 5 * CLUSTER];

  it('has what the copy wrote, and below it what was there', async () => {
    put(FIRST, BigInt(SECOND) | (1n << 63n));
    put(SECOND, 0n, BigInt(DATA) | (1n << 63n), 1n);
    const file = openSync(diskPath(folder), 'r+');
    writeSync(file, Buffer.alloc(CLUSTER, 'w'), 0, CLUSTER, DATA);
    closeSync(file);
    const before = readdirSync(folder);
    const flat = await openFlat(folder);
    try {
      expect([0, 1, 2, 3, CLUSTERS - 1].map((index) => cluster(flat, index))).toEqual([
        'b',
        'w',
        '\0',
        'b',
        'b',
      ]);
      expect(readdirSync(folder)).toEqual(before);
    } finally {
      closeSync(flat);
    }
  });

  it('has the front alone of what a copy wrote that has filled its disk', async () => {
    const words = Array.from({ length: CLUSTERS }, () => BigInt(DATA));
    put(FIRST, BigInt(SECOND), BigInt(7 * CLUSTER));
    put(SECOND, ...words.slice(0, CLUSTER / 8));
    put(7 * CLUSTER, ...words.slice(CLUSTER / 8));
    put(DATA, ...Array.from({ length: CLUSTER / 8 }, () => 0x7777_7777_7777_7777n));
    const flat = await openFront(folder);
    expect([0, 255, 256, CLUSTERS - 1].map((index) => cluster(flat, index))).toEqual(['w', 'w', 'b', 'b']);
    closeSync(flat);
  });

  it('comes to an end with tables that lead nowhere, and names what is no overlay', async () => {
    put(36, 0xffff_ffff_0000_0000n);
    put(FIRST, 0x00ff_ffff_ffff_f000n, BigInt(FIRST));
    closeSync(await openFlat(folder));
    put(0, 0n);
    await expect(openFlat(folder)).rejects.toThrow('the disk of the copy is no overlay');
    expect(readdirSync(folder)).not.toContain('.flat.tmp');
  });
});
