import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isInstalled, missingOf, namesOf } from './packages.ts';

describe('what is installed', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-packages-'));
    writeFileSync(join(folder, 'program'), '', { mode: 0o755 });
    writeFileSync(join(folder, 'text'), '', { mode: 0o644 });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is a program that can be executed, in the folders where it is looked for', () => {
    expect(isInstalled('program', [folder])).toBe(true);
    expect(isInstalled('text', [folder])).toBe(false);
    expect(isInstalled('program', ['/nowhere'])).toBe(false);
    expect(isInstalled('sh')).toBe(true);
  });

  it('is a file that can be read, when it is named by its whole path', () => {
    expect(isInstalled(join(folder, 'text'), [])).toBe(true);
    expect(isInstalled(folder, [])).toBe(false);
    chmodSync(join(folder, 'program'), 0o000);
    expect(isInstalled('program', [folder])).toBe(false);
  });

  it('is what is not named as missing, each package once', () => {
    const absent = { package: 'no-such-package', binary: 'no-such-program', why: 'a test' };
    const other = { ...absent, binary: 'nor-this' };
    const missing = missingOf([absent, { package: 'dash', binary: 'sh', why: 'a test' }, other]);
    expect(missing).toEqual([absent, other]);
    expect(namesOf(missing)).toEqual(['no-such-package']);
  });
});
