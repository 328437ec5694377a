import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lacking } from '../testing/fixture.ts';
import { Service } from './service.ts';

const missing = lacking({ image: false });
const UID = 65_533;

describe.skipIf(missing !== undefined)(`helper process (needs ${missing ?? 'nothing more'})`, () => {
  let folder: string;
  let service: Service | undefined;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-helper-'));
    chmodSync(folder, 0o777);
  });
  afterEach(async () => {
    await service?.[Symbol.asyncDispose]();
    service = undefined;
    rmSync(folder, { recursive: true, force: true });
  });

  /** A program that writes down its number at each start and goes on as `script` says. */
  const start = async (script: string, cwd = folder): Promise<Service> => {
    const counted = `cd ${folder}; echo $$ >> starts; number=$(wc -l < starts); ${script}`;
    service = await Service.start({
      name: 'helper',
      argv: ['sh', '-c', counted],
      netns: '/proc/self/ns/net',
      uid: UID,
      cwd,
      ready: (line) => line === 'ready',
      readyTimeoutMs: 700,
      failure: 'network_setup_failed',
      log: pino({ level: 'silent' }),
    });
    return service;
  };
  const pids = (): string[] => readFileSync(join(folder, 'starts'), 'utf8').trim().split('\n');

  it('ends a restart that never becomes ready, and tries again', async () => {
    const helper = await start(
      'case $number in 1) echo ready; until [ -e end ]; do sleep 0.05; done;; 2) exec sleep 60;; *) echo ready; exec sleep 60;; esac',
    );
    expect(helper.alive).toBe(true);
    writeFileSync(join(folder, 'end'), '');
    await expect.poll(() => helper.alive).toBe(false);
    await expect.poll(() => helper.alive, { timeout: 20_000 }).toBe(true);
    const started = pids();
    expect(started).toHaveLength(3);
    await expect
      .poll(() => started.map((pid) => existsSync(`/proc/${pid}`)), { timeout: 20_000 })
      .toEqual([false, false, true]);
  });

  it('tries again when the process cannot even be made', async () => {
    const cwd = join(folder, 'cwd');
    mkdirSync(cwd);
    const helper = await start('echo ready; until [ -e end ]; do sleep 0.05; done; rm end', cwd);
    rmSync(cwd, { recursive: true });
    writeFileSync(join(folder, 'end'), '');
    await expect.poll(() => helper.alive).toBe(false);
    // Long enough for a try without the folder.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    mkdirSync(cwd);
    await expect.poll(() => helper.alive, { timeout: 20_000 }).toBe(true);
  });

  it('leaves nothing running when the first start is not ready in time', async () => {
    await expect(start('exec sleep 60')).rejects.toMatchObject({
      code: 'network_setup_failed',
      message: 'helper: not ready after 700 ms',
    });
    // Dead at once, and gone from /proc when its parent has heard of it.
    await expect
      .poll(() => pids().map((pid) => existsSync(`/proc/${pid}`)), { timeout: 20_000 })
      .toEqual([false]);
  });
});
