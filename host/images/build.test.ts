import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { planAgent } from './agent.ts';
import { aptProgress, parseAptSize, planBase } from './base.ts';
import { planClis } from './clis.ts';
import { hasCommand, makeCheckout, temporaryDirectory } from './fixture.ts';
import { ensureLayer, type StageProgress } from './layer.ts';
import { takeLock } from './lock.ts';
import { run } from './run.ts';
import { unconfined } from './sandbox.ts';

const noErofs = !hasCommand('mkfs.erofs'); // capability: erofs-utils
const AGENT = "import * as pty from '@lydell/node-pty';\nconsole.log(typeof pty.spawn);\n";
const signal = AbortSignal.timeout(120_000);
const quiet = { sandbox: unconfined, progress: () => undefined, log: () => undefined };

describe('plans', () => {
  test('depend on the files of the checkout, not on where it is', async () => {
    await using one = await temporaryDirectory();
    await using two = await temporaryDirectory();
    const a = await makeCheckout(path.join(one.path, 'a'), AGENT);
    const b = await makeCheckout(path.join(two.path, 'another/place'), AGENT);
    const ids = async (checkout: string): Promise<string[]> =>
      (await Promise.all([planBase(checkout), planClis(checkout), planAgent(checkout)])).map(
        (plan) => plan.id,
      );
    const before = await ids(a);
    expect(await ids(b)).toEqual(before);

    await writeFile(path.join(b, 'guest/main.ts'), `${AGENT}console.log('more');\n`);
    const changedAgent = await ids(b);
    expect(changedAgent.slice(0, 2)).toEqual(before.slice(0, 2));
    expect(changedAgent[2]).not.toBe(before[2]);

    await writeFile(path.join(b, 'images/files/etc/more'), '');
    expect((await ids(b))[2]).not.toBe(changedAgent[2]);

    await writeFile(path.join(b, 'images/customize.sh'), '#!/bin/sh\n');
    await writeFile(path.join(b, 'images/clis/package-lock.json'), '{}');
    const changed = await ids(b);
    expect(changed[0]).not.toBe(before[0]);
    expect(changed[1]).not.toBe(before[1]);
    expect((await planBase(a, { suite: 'trixie' })).id).not.toBe(before[0]);
  });

  test('an agent that does not bundle is named with its line', async () => {
    await using directory = await temporaryDirectory();
    const checkout = await makeCheckout(directory.path, "\nimport './nothing.ts';\n");
    const error = await planAgent(checkout).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PolydevError);
    expect(PolydevError.from(error).lines.join()).toContain('guest/main.ts:2');
    await rm(path.join(checkout, 'guest/main.ts'));
    await expect(planAgent(checkout)).rejects.toThrow('guest/main.ts does not exist');
  });
});

describe.skipIf(noErofs)('agent layer (needs mkfs.erofs)', () => {
  test('two builds in two places give the same bytes, and a third takes it from the cache', async () => {
    await using directory = await temporaryDirectory();
    const sums: string[] = [];
    for (const name of ['one', 'two']) {
      const checkout = await makeCheckout(path.join(directory.path, name, 'checkout'), AGENT);
      const cacheDir = path.join(directory.path, name, 'cache');
      const layer = await ensureLayer(await planAgent(checkout), { cacheDir, signal, ...quiet });
      sums.push(layer.sha256);
      expect(layer.contents.agent).toMatch(/^\d+\.\d+\.\d+\+[0-9a-f]{8}$/);
      const again = await ensureLayer(
        { name: 'agent', id: layer.id, fill: () => Promise.reject(new Error('built twice')) },
        { cacheDir, signal, ...quiet },
      );
      expect(again).toEqual(layer);
    }
    expect(sums[0]).toBe(sums[1]);
  });

  test('a build that fails leaves neither a layer nor scratch; the next one works', async () => {
    await using directory = await temporaryDirectory();
    const cacheDir = directory.path;
    const plan = { name: 'agent', id: '0123456789abcdef' } as const;
    const fails = { ...plan, fill: () => Promise.reject(new Error('half-way')) };
    await expect(ensureLayer(fails, { cacheDir, signal, ...quiet })).rejects.toThrow('half-way');
    await expect(readFile(path.join(cacheDir, 'layers/agent-0123456789abcdef.json'))).rejects.toMatchObject({
      code: 'ENOENT',
    });
    const works = {
      ...plan,
      fill: async (root: string) => {
        await mkdir(path.join(root, 'opt'));
        return {};
      },
    };
    const layer = await ensureLayer(works, { cacheDir, signal, ...quiet });
    // A file cut short by a crash counts as not built.
    await writeFile(path.join(cacheDir, layer.file), 'short');
    expect((await ensureLayer(works, { cacheDir, signal, ...quiet })).sha256).toBe(layer.sha256);
  });
});

describe('progress', () => {
  test('follows a log of apt', () => {
    const seen: StageProgress[] = [];
    const follow = aptProgress({ progress: (progress) => seen.push(progress), log: () => undefined });
    const lines = [
      'I: running apt-get update...',
      'Get:1 http://m.example/debian bookworm InRelease [151 kB]',
      '0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.',
      'Need to get 1,000 kB/3,000 kB of archives.',
      'Get:1 http://m.example/debian bookworm/main amd64 tini amd64 0.19.0-1 [1,000 kB]',
      'Unpacking tini (0.19.0-1) ...',
      'Unpacking dash (0.5) ...',
      'Setting up tini (0.19.0-1) ...',
      'Setting up dash (0.5) ...',
    ];
    for (const line of lines) follow(line);
    expect(seen.shift()).toEqual({ message: 'running apt-get update...', bytes: 0, fraction: 0 });
    expect(seen[0]).toEqual({ message: 'fetching tini', bytes: 1_000_000, fraction: 1 / 3 });
    expect(seen[1]?.fraction).toBeCloseTo(0.5);
    expect(seen.at(-1)).toEqual({ message: 'setting up dash (2 of 2)', bytes: 1_000_000, fraction: 1 });
    expect(parseAptSize('29.7 MB')).toBe(29_700_000);
  });
});

describe('lock', () => {
  test('a second build waits for the first and is told its pid', async () => {
    await using directory = await temporaryDirectory();
    const file = path.join(directory.path, 'lock');
    const first = await takeLock(file, { signal });
    let holder = 0;
    let taken = false;
    const second = takeLock(file, { signal, onWait: (pid) => (holder = pid) }).then((lock) => {
      taken = true;
      return lock;
    });
    while (holder === 0) await sleep(20, undefined, { signal });
    expect(holder).toBe(process.pid);
    expect(taken).toBe(false);
    await first[Symbol.asyncDispose]();
    await (await second)[Symbol.asyncDispose]();
    expect(taken).toBe(true);
  });

  test('the lock of a dead process, or of a reused pid, is taken over; waiting can be given up', async () => {
    await using directory = await temporaryDirectory();
    const file = path.join(directory.path, 'lock');
    const gone = spawn('true');
    await once(gone, 'exit');
    for (const stale of [`${gone.pid} 1\n`, `${process.pid} 1\n`, '', 'rubbish']) {
      await writeFile(file, stale);
      await (await takeLock(file, { signal }))[Symbol.asyncDispose]();
    }
    await using _held = await takeLock(file, { signal });
    await expect(takeLock(file, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({
      name: expect.stringMatching(/Abort|Timeout/),
    });
  });
});

describe('commands', () => {
  test('a failing command is named with its last lines', async () => {
    const failing = run(['sh', '-c', 'echo first; echo last >&2; exit 3'], {
      what: 'the step',
      deadline: 10_000,
      signal,
    });
    await expect(failing).rejects.toMatchObject({
      code: 'image_build_failed',
      message: 'the step: sh ended with 3',
      lines: expect.arrayContaining(['first', 'last']),
    });
  });

  test('an abort ends the whole process group', async () => {
    const abort = new AbortController();
    let child = 0;
    const running = run(['sh', '-c', 'sleep 600 & echo $!; wait'], {
      what: 'the step',
      deadline: 60_000,
      signal: abort.signal,
      onLine: (line) => {
        child = Number(line);
        abort.abort(new Error('stopped by the person'));
      },
    });
    await expect(running).rejects.toThrow('stopped by the person');
    expect(child).toBeGreaterThan(0);
    // Gone, or a zombie that nobody has reaped yet.
    const state = await readFile(`/proc/${child}/stat`, 'utf8').catch(() => `${child} (gone) Z`);
    expect(state.split(') ')[1]?.[0]).toBe('Z');
  });

  test('a hung command ends at its deadline', async () => {
    await expect(run(['sleep', '600'], { what: 'the step', deadline: 50, signal })).rejects.toThrow(
      'no end after 0.05 s',
    );
  });
});
