import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { copyDisk, diskPath } from '../vm/disk.ts';
import { asleepFolder } from './state.ts';
import { keepAsTemplate, templateDisk, templateFolder } from './template.ts';

const MIB = 1024 * 1024;
const OWNER = 1_879_048_192;

describe.skipIf(process.getuid?.() !== 0)('a template’s files (needs root)', () => {
  let folder = '';
  const soon = (): AbortSignal => AbortSignal.timeout(60_000);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-template-'));
    const asleep = asleepFolder(folder);
    mkdirSync(asleep);
    writeFileSync(join(asleep, 'machine.json'), '{}');
    writeFileSync(join(asleep, 'state'), 'devices');
    // As Firecracker writes it: every page, also those that are zero.
    writeFileSync(join(asleep, 'memory'), Buffer.concat([Buffer.from('used'), Buffer.alloc(16 * MIB)]));
    writeFileSync(diskPath(folder), 'disk');
    truncateSync(diskPath(folder), 64 * MIB);
    for (const file of [join(asleep, 'state'), join(asleep, 'memory'), diskPath(folder)])
      chownSync(file, OWNER, OWNER);
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('are root’s, cannot be written, have holes where nothing was, and nobody wakes what they were', async () => {
    const before = readFileSync(join(asleepFolder(folder), 'memory'));
    await keepAsTemplate(folder, 1, soon());
    const [memory, state] = ['memory', 'state'].map((name) => join(templateFolder(folder), name)) as [
      string,
      string,
    ];
    for (const file of [memory, state, templateDisk(folder)]) {
      expect(statSync(file)).toMatchObject({ uid: 0, gid: 0, mode: 0o100444 });
    }
    expect(readFileSync(memory).equals(before)).toBe(true);
    expect(statSync(memory).blocks * 512).toBeLessThan(MIB);
    expect(readdirSync(templateFolder(folder)).sort()).toEqual(['memory', 'state']);
    expect([asleepFolder(folder), diskPath(folder)].filter(existsSync)).toEqual([]);
  });

  it('give a copy a disk of its own, which takes what was written', async () => {
    await keepAsTemplate(folder, 1, soon());
    const copy = join(folder, 'copy');
    mkdirSync(copy);
    await copyDisk(copy, templateDisk(folder), OWNER + 1, soon());
    const made = statSync(diskPath(copy));
    expect(made).toMatchObject({ uid: OWNER + 1, gid: OWNER + 1, mode: 0o100600, size: 64 * MIB });
    expect(made.blocks * 512).toBeLessThan(MIB);
    writeFileSync(diskPath(copy), 'mine', { flag: 'r+' });
    expect(readFileSync(templateDisk(folder)).toString('latin1', 0, 4)).toBe('disk');
  });
});
