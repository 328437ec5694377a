import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from './fixture.ts';
import { parseUpgrades } from './outdated.ts';
import { differences, lockedVersions, readPackageLock, writePackageLock } from './package-lock.ts';

describe('package lock', () => {
  test('of this checkout names what the image is made of', async () => {
    const lock = await readPackageLock(path.resolve(import.meta.dirname, '../..'));
    const versions = lockedVersions(lock, 'bookworm', 'amd64');
    expect(Object.keys(versions ?? {})).toEqual(expect.arrayContaining(['chromium', 'systemd', 'tini']));
    expect(lockedVersions(lock, 'trixie', 'amd64')).toBeUndefined();
  });

  test('says what is newer, new and gone', () => {
    expect(differences({ a: '1', b: '2', c: '3' }, { a: '1', b: '2.1', d: '4' })).toEqual([
      'b: 2 -> 2.1',
      'c: 3 -> none',
      'd: none -> 4',
    ]);
  });

  test('keeps other architectures of its suite, and nothing of another suite', async () => {
    await using checkout = await temporaryDirectory();
    await mkdir(path.join(checkout.path, 'images'));
    await expect(readPackageLock(checkout.path)).rejects.toMatchObject({ code: 'configuration_invalid' });
    await writePackageLock(checkout.path, 'bookworm', 'amd64', { b: '2', a: '1' });
    await writePackageLock(checkout.path, 'bookworm', 'arm64', { a: '1' });
    const lock = await readPackageLock(checkout.path);
    expect(lockedVersions(lock, 'bookworm', 'amd64')).toEqual({ a: '1', b: '2' });
    await writePackageLock(checkout.path, 'trixie', 'arm64', { a: '3' });
    expect(Object.keys((await readPackageLock(checkout.path)).architectures)).toEqual(['arm64']);
  });
});

test('upgrades are read from a simulation of apt', () => {
  const lines = [
    'Reading package lists...',
    'Inst libssl3 [3.0.15-1] (3.0.17-1~deb12u2 Debian-Security:12/oldstable-security [amd64])',
    'Inst git [1:2.39.5-0+deb12u1] (1:2.39.5-0+deb12u2 Debian:12.11/oldstable [amd64]) []',
    'Inst fresh (1.0 Debian:12.11/oldstable [amd64])',
    'Conf git (1:2.39.5-0+deb12u2 Debian:12.11/oldstable [amd64])',
  ];
  expect(parseUpgrades(lines)).toEqual([
    { layer: 'base', name: 'libssl3', has: '3.0.15-1', could: '3.0.17-1~deb12u2', security: true },
    { layer: 'base', name: 'git', has: '1:2.39.5-0+deb12u1', could: '1:2.39.5-0+deb12u2', security: false },
  ]);
});
