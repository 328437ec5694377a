import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { chmod, chown, lstat, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { isInstalled } from '../packages.ts';
import { hasCommand, temporaryDirectory } from './fixture.ts';
import { cacheFiles } from './manifest.ts';
import { unconfined } from './sandbox.ts';
import { buildEveryOwner } from './testing/every-owner.ts';

/** Exists only in the files that a test puts in place of the host's. */
const USER = { name: 'polydev-rootless', id: 54_321, subordinate: 1_000_000_000 };
const ACCOUNTS = ['/etc/passwd', '/etc/group'];
const RANGES = ['/etc/subuid', '/etc/subgid'];
const signal = AbortSignal.timeout(120_000);

/** What this host lacks for building as an ordinary user, and for comparing that with root's build. */
function lacking(): string | undefined {
  if (process.getuid?.() !== 0) return 'root';
  if (!isInstalled('newuidmap')) return 'uidmap';
  if (!hasCommand('mkfs.erofs')) return 'erofs-utils';
  if (!hasCommand('setcap')) return 'libcap2-bin';
  if (!RANGES.every((file) => existsSync(file))) return RANGES.join(' and ');
  for (let folder = import.meta.dirname; folder !== '/'; folder = path.dirname(folder)) {
    if ((statSync(folder).mode & 0o005) !== 0o005) return 'a checkout that every user can read';
  }
  return undefined;
}

/** A user with a home of mode 700; starts one of testing/ as that user, with a cache in that home. */
async function makeUser() {
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await temporaryDirectory());
  await chmod(directory.path, 0o755);
  const home = path.join(directory.path, 'home');
  await mkdir(home, { mode: 0o700 });
  await chown(home, USER.id, USER.id);
  const lines: Readonly<Record<string, string>> = {
    '/etc/passwd': `${USER.name}:x:${USER.id}:${USER.id}::${home}:/bin/sh`,
    '/etc/group': `${USER.name}:x:${USER.id}:`,
    '/etc/subuid': `${USER.name}:${USER.subordinate}:65536`,
    '/etc/subgid': `${USER.name}:${USER.subordinate}:65536`,
  };
  for (const [file, line] of Object.entries(lines)) {
    await writeFile(
      path.join(directory.path, path.basename(file)),
      `${await readFile(file, 'utf8')}${line}\n`,
    );
  }
  const start = (program: string, files: readonly string[]): ChildProcess => {
    const mounts = files.map((file) => `mount --bind ${directory.path}/${path.basename(file)} ${file}`);
    const user = [
      'setpriv',
      '--reuid',
      USER.id,
      '--regid',
      USER.id,
      '--clear-groups',
      '--inh-caps',
      '-all',
      '--',
    ];
    const child = spawn(
      'unshare',
      [
        ...['--mount', '--propagation=private', 'sh', '-ec', `${mounts.join('\n')}\nexec "$@"`, 'sh'],
        ...user.map(String),
        ...[process.execPath, '--no-warnings', path.join(import.meta.dirname, 'testing', program)],
        path.join(home, 'cache'),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/', env: { ...process.env, HOME: home }, signal },
    );
    child.once('error', () => undefined);
    return child;
  };
  const opened = undo.move();
  return { cacheDir: path.join(home, 'cache'), start, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** What it printed, once it has ended. */
async function outcome(child: ChildProcess) {
  const [stdout, stderr, [code]] = await Promise.all([
    child.stdout === null ? '' : text(child.stdout),
    child.stderr === null ? '' : text(child.stderr),
    once(child, 'exit') as Promise<[number | null]>,
  ]);
  return { stdout: stdout.trim(), stderr, code };
}

async function owners(folder: string): Promise<number[]> {
  const names = await readdir(folder, { recursive: true });
  const found = await Promise.all(names.map(async (name) => (await lstat(path.join(folder, name))).uid));
  return [...new Set(found)];
}

const missing = lacking();

describe.skipIf(missing !== undefined)(
  `a build by an ordinary user (needs ${missing ?? 'nothing more'})`,
  () => {
    test('gives the bytes of a build by root, in a home that nobody else may enter', async () => {
      await using user = await makeUser();
      await using other = await temporaryDirectory();
      const result = await outcome(user.start('every-owner.ts', [...ACCOUNTS, ...RANGES]));
      const { sha256 } = await buildEveryOwner(other.path, unconfined, signal);
      expect(result).toEqual({ stdout: sha256, stderr: '', code: 0 });
      expect(await owners(user.cacheDir)).toEqual([USER.id]);
      expect(await readdir(cacheFiles(user.cacheDir).tmpDir)).toEqual([]);
    });

    test('clears up after one that was killed, and keeps what that had fetched', async () => {
      await using user = await makeUser();
      const { tmpDir, debsDir } = cacheFiles(user.cacheDir);
      const killed = user.start('stuck-build.ts', [...ACCOUNTS, ...RANGES]);
      if (killed.stdout === null) throw new Error('no output');
      const [inside] = (await once(createInterface({ input: killed.stdout }), 'line', { signal })) as [
        string,
      ];
      const gone = once(killed, 'exit');
      killed.kill('SIGKILL');
      await gone;
      while (
        existsSync(`/proc/${inside}`) &&
        !(await readFile(`/proc/${inside}/stat`, 'utf8')).includes(') Z')
      )
        await sleep(50, undefined, { signal });
      expect(await owners(tmpDir)).toContain(USER.subordinate);
      expect((await outcome(user.start('every-owner.ts', [...ACCOUNTS, ...RANGES]))).stderr).toBe('');
      expect(await readdir(tmpDir)).toEqual([]);
      expect(await readdir(debsDir)).toEqual(['fetched_1_all.deb']);
      expect(await owners(user.cacheDir)).toEqual([USER.id]);
    });

    test('without subordinate ids says what root has to do once', async () => {
      await using user = await makeUser();
      const { stderr, code } = await outcome(user.start('every-owner.ts', ACCOUNTS));
      expect(code).not.toBe(0);
      expect(stderr).toContain(`usermod --add-subuids 200000-265535 ${USER.name}`);
      expect(stderr).toContain("code: 'not_root'");
    });
  },
);
