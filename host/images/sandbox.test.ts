import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { idLeasesIn } from '../system/ids.ts';
import { adoptArchives, stockArchives } from './archives.ts';
import { hasCommand, temporaryDirectory } from './fixture.ts';
import { ensureLayer } from './layer.ts';
import { clearLeftovers } from './leftovers.ts';
import { cacheFiles } from './manifest.ts';
import { openSandbox, unconfined } from './sandbox.ts';
import { buildEveryOwner } from './testing/every-owner.ts';

const notRoot = process.getuid?.() !== 0; // capability: root
const noErofs = !hasCommand('mkfs.erofs'); // capability: erofs-utils
const noSetcap = !hasCommand('setcap'); // capability: libcap2-bin
const signal = AbortSignal.timeout(120_000);
const options = { what: 'the step', deadline: 60_000, signal };
/** The first id that machines and builds get. */
const FIRST = 0x70000000;

/** A cache with an open sandbox, which must not be the fallback. Every user may pass through the folder. */
async function makeBench() {
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await temporaryDirectory());
  await chmod(directory.path, 0o755);
  const cacheDir = path.join(directory.path, 'cache');
  const folder = cacheFiles(cacheDir).tmpDir;
  const sharedFolder = path.join(directory.path, 'shared');
  const refusals: string[] = [];
  const onFallback = (why: string): number => refusals.push(why);
  const sandbox = undo.use(await openSandbox({ folder, sharedFolder, signal, onFallback }));
  expect(refusals).toEqual([]);
  const opened = undo.move();
  return { cacheDir, folder, sharedFolder, sandbox, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** Paths below `folder` with an owner that is not root. */
async function foreign(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  const owners = await Promise.all(names.map(async (name) => (await lstat(path.join(folder, name))).uid));
  return names.filter((_name, index) => owners[index] !== 0);
}

describe.skipIf(notRoot)('sandbox of a build (needs root and user namespaces)', () => {
  test('its root is nobody of this host: it writes what it was given and nothing else', async () => {
    await using bench = await makeBench();
    const { sandbox, folder, sharedFolder } = bench;
    expect(sandbox.confined).toBe(true);
    const [given, kept] = [path.join(folder, 'given'), path.join(folder, 'kept')];
    for (const place of [given, kept]) await mkdir(place);
    await sandbox.give([given]);
    expect(await sandbox.run(['id', '--user'], options)).toEqual(['0']);
    await sandbox.run(['touch', path.join(given, 'file')], options);
    await expect(sandbox.run(['touch', path.join(kept, 'file')], options)).rejects.toMatchObject({
      message: 'the step: touch ended with 1',
      lines: [expect.stringContaining('Permission denied')],
    });
    await expect(sandbox.run(['mknod', path.join(given, 'null'), 'c', '1', '3'], options)).rejects.toThrow();
    await expect(sandbox.run(['kill', '-0', String(process.pid)], options)).rejects.toThrow();

    const { uid } = await lstat(path.join(given, 'file'));
    expect(uid).toBeGreaterThanOrEqual(FIRST);
    expect((await idLeasesIn(sharedFolder).list()).map(({ owner }) => owner)).toEqual([folder]);
    await sandbox.take([given, path.join(given, 'file')]);
    expect(await foreign(folder)).toEqual([]);
  });

  test('what it mounts and starts is gone with the command, also when that is aborted', async () => {
    await using bench = await makeBench();
    const { sandbox, folder } = bench;
    const place = path.join(folder, 'place');
    await mkdir(place);
    const abort = new AbortController();
    const script = `mount -t tmpfs none ${place} && touch ${place}/inside && sleep 600 & sleep 1; cat /proc/self/mountinfo; exec sleep 601`;
    const seen: string[] = [];
    const running = sandbox.run(['sh', '-c', script], {
      ...options,
      signal: abort.signal,
      onLine: (line) => {
        seen.push(line);
        if (line.includes(` ${place} `)) abort.abort(new Error('stopped by the person'));
      },
    });
    await expect(running).rejects.toThrow('stopped by the person');
    expect(seen.join('\n')).toContain(place);
    expect(await readdir(place)).toEqual([]);
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(place);
  });

  test('where it cannot be, root does the work and it is said once why; the range of ids is free again', async () => {
    await using directory = await temporaryDirectory();
    await chmod(directory.path, 0o700);
    const [folder, sharedFolder] = [path.join(directory.path, 'tmp'), path.join(directory.path, 'shared')];
    const told: string[] = [];
    const onFallback = (why: string): number => told.push(why);
    await using sandbox = await openSandbox({ folder, sharedFolder, signal, onFallback });
    expect(sandbox.confined).toBe(false);
    expect(told).toEqual([
      expect.stringMatching(`^maintainer scripts and npm run as root.*permission denied.*${folder}`),
    ]);
    expect(await idLeasesIn(sharedFolder).list()).toEqual([]);
    await sandbox.run(['touch', path.join(folder, 'file')], options);
    expect(await foreign(folder)).toEqual([]);
  });

  test('the next build clears up after one that was killed, and keeps what that had fetched', async () => {
    await using bench = await makeBench();
    const { sandbox, cacheDir, folder } = bench;
    // A build in the middle of its work: files of foreign ids, a fetched package, a process in the sandbox.
    const killed = spawn(
      process.execPath,
      ['--no-warnings', fileURLToPath(new URL('./testing/stuck-build.ts', import.meta.url)), cacheDir],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const gone = once(killed, 'exit');
    const [inside] = (await once(createInterface({ input: killed.stdout }), 'line', { signal })) as [string];
    killed.kill('SIGKILL');
    await gone;
    const alive = async (): Promise<boolean> =>
      (await readFile(`/proc/${inside}/stat`, 'utf8').catch(() => ' Z '))
        .split(') ')
        .at(-1)
        ?.startsWith('Z') === false;
    while (await alive()) await sleep(50, undefined, { signal });

    expect((await foreign(folder)).length).toBeGreaterThan(0);
    await clearLeftovers(cacheDir, sandbox);
    expect(await readdir(folder)).toEqual([]);
    expect(await readdir(cacheFiles(cacheDir).debsDir)).toEqual(['fetched_1_all.deb']);
    expect(await foreign(cacheDir)).toEqual([]);
  });

  test('a build gets packages that it cannot change; a link that it leaves is not taken over', async () => {
    await using bench = await makeBench();
    const { sandbox, cacheDir } = bench;
    const { debsDir } = cacheFiles(cacheDir);
    await mkdir(debsDir, { recursive: true });
    await writeFile(path.join(debsDir, 'old_1_all.deb'), 'old', { mode: 0o644 });
    const stock = await stockArchives(cacheDir, sandbox);
    expect(await sandbox.run(['cat', path.join(stock, 'old_1_all.deb')], options)).toEqual(['old']);
    const overwrite = ['sh', '-c', `echo other > ${stock}/old_1_all.deb`] as const;
    await expect(sandbox.run([...overwrite], options)).rejects.toThrow();
    await sandbox.run(['ln', '-s', '/etc/shadow', path.join(stock, 'link_1_all.deb')], options);
    await sandbox.run(['touch', path.join(stock, 'new_1_all.deb')], options);
    await symlink('/etc/passwd', path.join(stock, 'later_1_all.deb'));
    await adoptArchives(cacheDir, sandbox);
    expect((await readdir(debsDir)).sort()).toEqual(['new_1_all.deb', 'old_1_all.deb']);
    expect(await readFile(path.join(debsDir, 'old_1_all.deb'), 'utf8')).toBe('old');
    expect(await foreign(cacheDir)).toEqual([]);
    expect(await readdir(cacheFiles(cacheDir).tmpDir)).toEqual([]);
  });
});

describe.skipIf(notRoot || noErofs || noSetcap)('layers (needs root, mkfs.erofs and setcap)', () => {
  test('have the same bytes whether root built them or nobody, devices and capabilities too', async () => {
    await using bench = await makeBench();
    await using other = await temporaryDirectory();
    const confined = await buildEveryOwner(bench.cacheDir, bench.sandbox, signal);
    const plain = await buildEveryOwner(other.path, unconfined, signal);
    expect(confined.sha256).toBe(plain.sha256);
    expect(await foreign(bench.cacheDir)).toEqual([]);
    expect(await readdir(bench.folder)).toEqual([]);
  });

  test('a layer in which a script has put something else in place of a device is refused', async () => {
    await using bench = await makeBench();
    const { sandbox, cacheDir } = bench;
    const plan = {
      name: 'base',
      id: '0123456789abcdef',
      devices: { null: [1, 3] },
      async fill(root: string) {
        await sandbox.give([root]);
        await sandbox.run(['sh', '-ec', 'mkdir "$1/dev" && touch "$1/dev/null"', 'sh', root], options);
        return {};
      },
    } as const;
    const quiet = { progress: () => undefined, log: () => undefined };
    await expect(ensureLayer(plan, { cacheDir, sandbox, signal, ...quiet })).rejects.toThrow(
      '/dev/null is not the FIFO that was made',
    );
    expect(await readdir(bench.folder)).toEqual([]);
  });
});
