/**
 * What a driver's machines go through: sleep with something alive in them, limits, many at once, and hosts that lack something.
 * Rows that a driver cannot pass say what it lacks; those that start many machines take their number from the contract.
 */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { wake } from '../../controller/hosts/wake.ts';
import type { HostConfig } from '../../host/config.ts';
import { auditSettled } from '../../host/leaks.ts';
import { copyImages } from '../faults/images.ts';
import { type Guest, HostProcess, run } from './host-process.ts';
import { openTickingPage, ticksOf } from './page.ts';

export interface DriverLifeContract {
  name: HostConfig['driver'];
  /** What this computer lacks for it; undefined: nothing. */
  missing: string | undefined;
  /** Folders and settings of an instance of its own. */
  bench: () => Disposable & { config: HostConfig };
  checkout: string;
  /** Milliseconds that a machine may take until its agent is ready. */
  bootMs: number;
  /** How many times longer than usual the host and its guests may take to answer; default 1. */
  patience?: number;
  /** How many machines are started one after the other, and at once. */
  many: { inARow: number; atOnce: number };
}

const LIMITS = { cpus: 2, memoryMiB: 1024, pids: 256, diskMiB: 256 };
/** The browser needs more of everything. */
const BROWSER_LIMITS = { cpus: 2, memoryMiB: 2048, pids: 1024 };

/** Counts in a file ten times a second, under a process of its own. */
const COUNTER = 'i=0; while :; do i=$((i+1)); echo $i > counter; sleep 0.1; done';

export function driverLifeContract(contract: DriverLifeContract): void {
  const { name, missing, bootMs, many, patience = 1 } = contract;
  const title = `${name} driver: life of a machine (needs ${missing ?? 'nothing more'})`;
  const timeout = bootMs * (many.inARow + 2) + 120_000 * patience;

  describe.skipIf(missing !== undefined)(title, { timeout }, () => {
    let bench: ReturnType<DriverLifeContract['bench']>;
    let host: HostProcess;
    let sleepKind: 'disk' | 'frozen' | null = null;
    beforeAll(async () => {
      bench = contract.bench();
      bench.config.driver = name;
      host = new HostProcess(bench.config, contract.checkout, bootMs, patience);
      await host.serve();
    });
    afterAll(async () => {
      await host.end('SIGTERM');
      const left = await auditSettled(bench.config);
      bench[Symbol.dispose]();
      expect(left).toEqual([]);
    }, 180_000 * patience);

    const poll = async <T>(read: () => Promise<T>, fits: (value: T) => boolean): Promise<T> => {
      const end = performance.now() + bootMs;
      for (;;) {
        const value = await read();
        if (fits(value)) return value;
        if (performance.now() > end) throw new Error(`it stays ${JSON.stringify(value)}`);
        await sleep(200 * patience);
      }
    };
    const resume = async ({ spec, agent }: Guest): Promise<void> => {
      expect(await host.host.resume(spec.id)).toMatchObject({ state: 'running', id: spec.id });
      await wake(agent, AbortSignal.timeout(60_000 * patience));
    };
    /** What is to be done in a machine that is there for nothing else. */
    const inOneOfItsOwn = async (work: (guest: Guest) => Promise<void>): Promise<void> => {
      const guest = host.guest('cli', LIMITS);
      try {
        await host.start(guest);
        await work(guest);
      } finally {
        await host.host.destroy(guest.spec.id);
      }
    };

    describe('asleep', () => {
      let guest: Guest;
      const counter = async () => Number((await run(guest, ['cat', 'counter'])).text);
      beforeAll(
        async () => {
          guest = host.guest('cli', LIMITS);
          await host.start(guest);
          sleepKind = (await host.host.get(guest.spec.id))?.sleep ?? null;
          // What a command leaves in its process group ends with it: this must have left the group by then.
          const start = `setsid -f sh -c '${COUNTER}' > /dev/null 2>&1 < /dev/null`;
          await run(guest, ['sh', '-c', `${start}; until [ -s counter ]; do sleep 0.1; done`]);
        },
        bootMs + 60_000 * patience,
      );
      afterAll(() => host.host.destroy(guest.spec.id), 60_000 * patience);

      it('keeps what runs in it, and nothing reaches it', async ({ skip }) => {
        skip(sleepKind === null, 'the driver cannot hibernate');
        const { spec } = guest;
        const before = await poll(counter, (n) => n > 5);
        const kept = await host.host.dial(spec.id, AbortSignal.timeout(10_000 * patience));
        const cut = new Promise((resolve) => kept.once('close', resolve).resume());
        expect(await host.host.hibernate(spec.id)).toMatchObject({ state: 'hibernated', exit: null });
        await cut;
        await expect(host.host.dial(spec.id)).rejects.toMatchObject({ code: 'machine_unreachable' });
        expect(await host.host.hibernate(spec.id)).toMatchObject({ state: 'hibernated' });
        expect(await host.host.console(spec.id)).toContain('listening after');
        await resume(guest);
        const after = await poll(counter, (n) => n > before);
        await poll(counter, (n) => n > after + 5);
      });

      it('has the right time and other random numbers when it goes on', async ({ skip }) => {
        skip(sleepKind === null, 'the driver cannot hibernate');
        const random = () => run(guest, ['od', '-An', '-N16', '-tx1', '/dev/urandom']);
        const before = await random();
        await host.host.hibernate(guest.spec.id);
        await sleep(3_000);
        await resume(guest);
        // A clock that stood still is three seconds late; what a command takes is between the two looks at our clock.
        const from = Date.now();
        const { text } = await run(guest, ['node', '-p', 'Date.now()']);
        expect(Number(text)).toBeGreaterThanOrEqual(from - 100);
        expect(Number(text)).toBeLessThanOrEqual(Date.now() + 100);
        expect((await random()).text).not.toBe(before.text);
      });

      it('sleeps on while its host service is killed and started again', async ({ skip }) => {
        skip(sleepKind === null, 'the driver cannot hibernate');
        const { spec } = guest;
        const before = await counter();
        await host.host.hibernate(spec.id);
        await host.end('SIGKILL');
        await host.serve();
        expect(await host.host.get(spec.id)).toMatchObject({ state: 'hibernated' });
        await resume(guest);
        await poll(counter, (n) => n > before);
      });

      it('can be stopped in its sleep, and starts from its disk', async ({ skip }) => {
        skip(sleepKind === null, 'the driver cannot hibernate');
        const { spec } = guest;
        await run(guest, ['sh', '-c', 'echo mark > mark; sync']);
        await host.host.hibernate(spec.id);
        expect(await host.host.stop(spec.id)).toMatchObject({ state: 'stopped' });
        await host.start(guest);
        expect((await run(guest, ['cat', 'mark'])).text).toBe('mark\n');
        await host.host.hibernate(spec.id);
        await host.host.destroy(spec.id);
        expect(await host.host.get(spec.id)).toBeUndefined();
      });
    });

    it('keeps an open page alive through its sleep', async ({ skip }) => {
      skip(sleepKind === null, 'the driver cannot hibernate');
      const guest = host.guest('browser', BROWSER_LIMITS);
      await host.start(guest);
      try {
        await openTickingPage(guest);
        const ticks = (): Promise<number> => ticksOf(guest);
        const before = await poll(ticks, (n) => n > 5);
        await host.host.hibernate(guest.spec.id);
        await resume(guest);
        const after = await poll(ticks, (n) => n > before);
        await poll(ticks, (n) => n > after + 5);
      } finally {
        await host.host.destroy(guest.spec.id);
      }
    });

    describe('limits', () => {
      let guest: Guest;
      beforeAll(
        async () => {
          guest = host.guest('cli', LIMITS);
          await host.start(guest);
        },
        bootMs + 60_000 * patience,
      );
      afterAll(() => host.host.destroy(guest.spec.id), 60_000 * patience);

      it('ends what wants more memory and nothing else, and the machine goes on', async () => {
        await run(guest, [
          'sh',
          '-c',
          'setsid -f tail -f /dev/null > /dev/null 2>&1 < /dev/null; until pgrep -x tail; do sleep 0.1; done',
        ]);
        const others = await run(guest, ['pgrep', '-x', 'tail']);
        const script = 'const all = []; for (;;) all.push(Buffer.alloc(16 * 1024 * 1024, 1));';
        const { code, signal } = await run(guest, ['node', '-e', script], 240_000);
        expect([code, signal]).toEqual([null, 'SIGKILL']);
        expect(await guest.agent.health()).toMatchObject({ ready: true });
        expect(await run(guest, ['pgrep', '-x', 'tail'])).toEqual(others);
        // Nothing of the person's is spared where the agent is.
        expect(Number((await run(guest, ['cat', '/proc/self/oom_score_adj'])).text)).toBeGreaterThanOrEqual(
          0,
        );
      });

      it('gives no more processor time than its share', async () => {
        const spin = '(timeout 3 sh -c "while :; do :; done") &';
        const script = `from=$EPOCHREALTIME; ${spin.repeat(4)} wait; times; echo $from $EPOCHREALTIME`;
        const { text } = await run(guest, ['bash', '-c', script]);
        const used = [...text.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
          (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
          0,
        );
        const [from = 0, until = 0] = text.trim().split('\n').at(-1)?.split(' ').map(Number) ?? [];
        expect(used).toBeGreaterThan(0);
        expect(used).toBeLessThan(LIMITS.cpus * (until - from) * 1.3);
      });

      it('lets no more processes run', async () => {
        const script = `for i in $(seq ${LIMITS.pids}); do sleep 600 & done 2>&1; kill $(jobs -p)`;
        expect((await run(guest, ['bash', '-c', script], 120_000)).text).toMatch(/fork: (retry: )?Resource/);
        expect(await guest.agent.health()).toMatchObject({ ready: true });
      });
    });

    // A machine of its own: where machines' folders are in memory, what a guest wrote counts to the limit of its hypervisor.
    it('ends its disk where it was said to end', async () => {
      const fill = 'dd if=/dev/zero of=fill bs=1M count=400 2>&1; stat -c %s fill; rm fill';
      await inOneOfItsOwn(async (guest) => {
        const { text } = await run(guest, ['sh', '-c', fill], 240_000);
        expect(text).toContain('No space left on device');
        expect(Number(text.trim().split('\n').at(-1))).toBeLessThan(LIMITS.diskMiB * 1024 * 1024);
      });
    });

    it(`starts ${many.inARow} machines in a row and ${many.atOnce} at once`, async () => {
      const once = (): Promise<void> =>
        inOneOfItsOwn(async (guest) => {
          expect((await run(guest, ['echo', 'here'])).text).toBe('here\n');
        });
      for (let turn = 0; turn < many.inARow; turn++) await once();
      await Promise.all(Array.from({ length: many.atOnce }, once));
      expect(await host.host.list()).toEqual([]);
    });

    it('names a disk that is promised too often', async () => {
      await host.end('SIGTERM');
      await host.serve({ diskOvercommit: 0.01 });
      const { spec } = host.guest('cli', { ...LIMITS, diskMiB: 1_048_576 });
      await expect(host.host.put(spec)).rejects.toMatchObject({ code: 'host_out_of_space' });
      expect(await host.host.list()).toEqual([]);
      await host.end('SIGTERM');
      await host.serve();
    });

    it('does not hang on an image that is corrupt', async () => {
      await host.end('SIGTERM');
      const copy = await copyImages(bench.config);
      // Virtual machines' parts are beside the layers.
      const vm = join(bench.config.imageCacheDir, 'vm');
      await cp(vm, join(copy.folder, 'vm'), { recursive: true }).catch(() =>
        mkdir(copy.folder, { recursive: true }),
      );
      const bytes = await readFile(copy.agent);
      // Not even the superblock stays.
      await writeFile(copy.agent, Buffer.alloc(bytes.length, 0x2f));
      await host.serve({ imageCacheDir: copy.folder });
      const guest = host.guest('cli', LIMITS);
      const failed = await host.start(guest).then(
        () => 'it started',
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      expect(failed).not.toBe('it started');
      await host.host.destroy(guest.spec.id);
      await host.end('SIGTERM');
      await rm(copy.folder, { recursive: true, force: true });
      await host.serve();
    });
  });
}
