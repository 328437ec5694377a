import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mountPoints } from '../../system/syscalls.ts';
import { connectInJail, fillJail, jailId, jailRoot } from './jail.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'polydev-jail-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('is where the jailer looks for it', () => {
  expect(jailRoot('/base', '/opt/firecracker-v1.16', jailId('probe'))).toBe(
    '/base/firecracker-v1.16/probe/root',
  );
});

const root = process.getuid?.() === 0;
describe.skipIf(!root)('a filled jail (needs root)', () => {
  const OWNER = 1_879_048_192;
  const mounted = (): string[] =>
    mountPoints().flatMap(({ target }) => (target.startsWith(folder) ? [target] : []));

  it('has its own files, others read-only, and no mount once that is disposed of', async () => {
    const at = join(folder, 'jail/root');
    const [shared, owned] = [join(folder, 'shared'), join(folder, 'owned')];
    for (const path of [shared, owned]) writeFileSync(path, path);
    const mounts = await fillJail(at, OWNER, {
      shared: { '/kernel': shared },
      owned: { '/disk': owned },
      made: { '/config': Buffer.from('config') },
    });
    expect(mounted()).toEqual([at, join(at, 'kernel')]);
    expect(readFileSync(join(at, 'kernel'), 'utf8')).toBe(shared);
    expect(() => writeFileSync(join(at, 'kernel'), 'x')).toThrow('EROFS');
    expect(statSync(join(at, 'disk')).ino).toBe(statSync(owned).ino);
    expect([statSync(join(at, 'config')).uid, statSync(join(at, 'config')).mode & 0o777]).toEqual([
      OWNER,
      0o600,
    ]);
    mounts[Symbol.dispose]();
    expect(mounted()).toEqual([]);
    expect(readFileSync(shared, 'utf8')).toBe(shared);
  });

  it('leaves no mount behind when it cannot be filled', async () => {
    const at = join(folder, 'jail/root');
    const shared = { '/kernel': join(folder, 'nothing') };
    await expect(fillJail(at, OWNER, { shared, owned: {}, made: {} })).rejects.toThrow('ENOENT');
    expect(mounted()).toEqual([]);
  });
});

it('is entered by its sockets only, however long their path', async () => {
  // Longer than the 107 bytes of a socket's address.
  const deep = join(folder, 'x'.repeat(120));
  mkdirSync(deep);
  const path = join(deep, 's.sock');
  const short = join(folder, 's.sock');
  const server = createServer((socket) => socket.end('hello'));
  await new Promise<void>((resolve) => {
    server.listen(short, resolve);
  });
  try {
    renameSync(short, path);
    let text = '';
    for await (const chunk of connectInJail(path)) text += String(chunk);
    expect(text).toBe('hello');
    symlinkSync(path, join(folder, 'link'));
    expect(() => connectInJail(join(folder, 'link'))).toThrow('is no socket');
    expect(existsSync(path)).toBe(true);
  } finally {
    server.close();
  }
});
