import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readLock, takeLock } from './lock.ts';
import { checkPaths, checkPort, checkReadable } from './preflight.ts';
import { readSettings, settingsPaths } from './settings.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'polydev-preflight-'));
  await chmod(folder, 0o755);
});
afterEach(() => rm(folder, { recursive: true }));

it('names a port that is taken, and leaves a free one free', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  await expect(checkPort({ port, bind: '127.0.0.1' })).rejects.toMatchObject({
    code: 'configuration_invalid',
    message: expect.stringContaining(`port ${port}`),
  });
  await new Promise((resolve) => server.close(resolve));
  await checkPort({ port, bind: '127.0.0.1' });
  await checkPort({ port, bind: '127.0.0.1' });
});

it('names a checkout that was made with a strict umask, and what to do', async () => {
  for (const name of ['controller', 'node_modules/zod'])
    await mkdir(path.join(folder, name), { recursive: true });
  for (const name of ['package.json', 'controller/main.ts']) await writeFile(path.join(folder, name), '');
  await chmod(path.join(folder, 'controller/main.ts'), 0o600);
  await expect(checkReadable(folder)).rejects.toMatchObject({
    code: 'configuration_invalid',
    message: expect.stringContaining(`chmod -R go+rX ${folder}`),
  });
  await chmod(path.join(folder, 'controller/main.ts'), 0o644);
  const closed = path.join(folder, 'closed');
  await mkdir(closed, { mode: 0o700 });
  const node = path.join(closed, 'node');
  await writeFile(node, '', { mode: 0o755 });
  await expect(checkReadable(folder, node)).rejects.toMatchObject({
    message: expect.stringContaining('POLYDEV_CACHE'),
  });
});

it('names a data directory that cannot be part of mount options', () => {
  for (const name of ['my data', 'a,b', 'a:b', 'a\\b'])
    expect(() => checkPaths(readSettings({ data: path.join(folder, name) }))).toThrow(
      expect.objectContaining({
        code: 'configuration_invalid',
        message: expect.stringContaining('without spaces, commas, colons and backslashes'),
      }),
    );
  checkPaths(readSettings({ data: path.join(folder, 'data') }));
});

it('takes a lock that a loss of power left empty', async () => {
  const settings = readSettings({ data: folder });
  await writeFile(settingsPaths(settings).lock, '');
  expect(await readLock(settings)).toBeUndefined();
  await using stack = new AsyncDisposableStack();
  const lock = await takeLock(settings);
  stack.defer(() => lock.release());
  expect(await readLock(settings)).toMatchObject({ pid: process.pid });
});
