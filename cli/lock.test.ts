import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readLock, takeLock } from './lock.ts';
import { readSettings, settingsPaths } from './settings.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'polydev-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const moduleOf = (name: string): string => pathToFileURL(path.join(import.meta.dirname, name)).href;
/** Tries at the moment given, says how it went, and lives until its input ends. */
const RACER = `
  const [folder, moment] = process.argv.slice(1);
  const { takeLock } = await import('${moduleOf('lock.ts')}');
  const { readSettings } = await import('${moduleOf('settings.ts')}');
  while (Date.now() < Number(moment)) await new Promise((resolve) => setImmediate(resolve));
  await takeLock(readSettings({ data: folder })).then(
    () => console.log('taken'),
    (error) => console.log(error.code),
  );
  process.stdin.resume();
`;

it.each([['no lock'], ['the lock of a dead process']])('is never given twice, with %s', async (before) => {
  const settings = readSettings({ data: folder });
  if (before !== 'no lock')
    writeFileSync(settingsPaths(settings).lock, JSON.stringify({ pid: 1, startTicks: 'never' }));
  // In one process their steps interleave for certain: all of them look before any of them writes.
  const tries = await Promise.allSettled(Array.from({ length: 5 }, () => takeLock(settings)));
  expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const each of tries)
    if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'already_running' });
});

it.each([['no lock'], ['the lock of a dead process']])(
  'is given to one of many that try at the same moment, with %s',
  async (before) => {
    const settings = readSettings({ data: folder });
    if (before !== 'no lock')
      writeFileSync(settingsPaths(settings).lock, JSON.stringify({ pid: 1, startTicks: 'never' }));
    const moment = String(Date.now() + 2500);
    const racers = Array.from({ length: 6 }, () =>
      spawn(process.execPath, ['--input-type=module', '-e', RACER, folder, moment], {
        stdio: ['pipe', 'pipe', 'inherit'],
        timeout: 30_000,
      }),
    );
    try {
      const first = racers.map(
        ({ stdout }) =>
          new Promise<string>((resolve) => stdout.once('data', (data) => resolve(String(data).trim()))),
      );
      const said = await Promise.all(first);
      expect(said.sort()).toEqual([...Array.from({ length: 5 }, () => 'already_running'), 'taken']);
    } finally {
      for (const { stdin } of racers) stdin.end();
      await Promise.all(racers.map(({ stdout }) => text(stdout)));
    }
    // All of them have ended: the next one gets it.
    const lock = await takeLock(settings);
    await lock.setUrls({ url: 'http://127.0.0.1:1', publicUrl: 'http://127.0.0.1:1' });
    expect(await readLock(settings)).toMatchObject({ pid: process.pid, url: 'http://127.0.0.1:1' });
    await lock.release();
    expect(await readdir(folder)).toEqual([]);
  },
);
