import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { removeRunDir } from './up.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'polydev-up-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('removes what a run left, with the settings in it', async () => {
  const runDir = path.join(folder, 'run');
  mkdirSync(path.join(runDir, 'host'), { recursive: true });
  writeFileSync(path.join(runDir, 'controller.json'), '{}');
  await removeRunDir(runDir);
  expect(existsSync(runDir)).toBe(false);
});

it.skipIf(process.getuid?.() !== 0)('removes nothing through a mount (needs root)', async () => {
  const [disk, runDir] = [path.join(folder, 'disk'), path.join(folder, 'run')];
  const mounted = path.join(runDir, 'host', 'root');
  mkdirSync(disk);
  mkdirSync(mounted, { recursive: true });
  writeFileSync(path.join(disk, 'work'), 'of a person');
  writeFileSync(path.join(runDir, 'controller.json'), '{}');
  execFileSync('mount', ['--bind', disk, mounted]);
  try {
    await removeRunDir(runDir);
    expect(existsSync(path.join(disk, 'work'))).toBe(true);
    expect(existsSync(path.join(runDir, 'controller.json'))).toBe(false);
  } finally {
    execFileSync('umount', [mounted]);
  }
});
