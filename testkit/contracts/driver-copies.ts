/**
 * Snapshot start: browser machines that begin as copies of one that has booted. The genuine host service makes the template by
 * itself; nothing here knows how a driver does it. Rows of a driver that makes none are skipped by that name.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createAgentClient } from '../../controller/hosts/agent-client.ts';
import { wake, wokeNow } from '../../controller/hosts/wake.ts';
import type { HostConfig } from '../../host/config.ts';
import { auditSettled } from '../../host/leaks.ts';
import { cgroupOfInstance, cgroupProcesses } from '../../host/system/cgroups.ts';
import { type Guest, HostProcess, run } from './host-process.ts';
import { openTickingPage, ticksOf } from './page.ts';

export interface DriverCopiesContract {
  name: HostConfig['driver'];
  /** What this computer, or the driver, lacks for it; undefined: nothing. */
  missing: string | undefined;
  /** Folders and settings of an instance of its own. */
  bench: () => Disposable & { config: HostConfig };
  checkout: string;
  /** Milliseconds that a browser machine may take until its page is painted. */
  bootMs: number;
}

const LIMITS = { cpus: 2, memoryMiB: 2048, pids: 1024 };
const COPY_MS = 60_000;

/** What tells two machines apart, and one from itself a moment later. */
const SELF = `hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/uuid
  node -p 'crypto.randomBytes(16).toString("hex")'; ip -4 -br addr show eth0`;

export function driverCopiesContract(contract: DriverCopiesContract): void {
  const { name, missing, bootMs } = contract;
  const title = `${name} driver: copies of a machine that has booted (needs ${missing ?? 'nothing more'})`;

  describe.skipIf(missing !== undefined)(title, { timeout: COPY_MS * 4 }, () => {
    let bench: ReturnType<DriverCopiesContract['bench']>;
    let host: HostProcess;
    const snapshotStart = { enabled: true, idleSeconds: 0 };
    const poll = async <T>(
      read: () => Promise<T>,
      fits: (value: T) => boolean,
      limitMs: number,
    ): Promise<T> => {
      const end = performance.now() + limitMs;
      for (;;) {
        const value = await read();
        if (fits(value)) return value;
        if (performance.now() > end) throw new Error(`it stays ${JSON.stringify(value)}`);
        await sleep(200);
      }
    };
    const templates = async (): Promise<number | undefined> => (await host.host.health()).templates;
    const copy = async (): Promise<Guest> => {
      const guest = host.guest('browser', LIMITS);
      await host.start(guest);
      expect(await host.host.get(guest.spec.id)).toMatchObject({ state: 'running', copied: true });
      return guest;
    };

    beforeAll(async () => {
      bench = contract.bench();
      bench.config.driver = name;
      host = new HostProcess(bench.config, contract.checkout, bootMs);
      await host.serve({ snapshotStart });
      const first = host.guest('browser', LIMITS);
      await host.start(first);
      expect((await host.host.get(first.spec.id))?.copied).toBeUndefined();
      await host.host.destroy(first.spec.id);
      await poll(templates, (count) => count === 1, bootMs * 2);
    }, bootMs * 4);
    afterAll(async () => {
      await host.end('SIGTERM');
      const left = await auditSettled(bench.config);
      bench[Symbol.dispose]();
      expect(left).toEqual([]);
    }, 180_000);

    it('starts two at once: each is a machine of its own, with the right time, and an open page lives in it', async () => {
      const began = Date.now();
      const guests = await Promise.all([copy(), copy()]);
      const [one, two] = guests as [Guest, Guest];
      // What the other one had reached is stamped by this one, after it was asked for.
      for (const { agent } of guests) {
        const { stamps, ready } = await agent.health();
        expect(ready).toBe(true);
        for (const { at } of stamps) expect(Date.parse(at)).toBeGreaterThanOrEqual(began - 100);
      }
      const selves = await Promise.all(guests.map((guest) => run(guest, ['sh', '-c', SELF])));
      const [a, b] = selves.map(({ text }) => text.trim().split('\n')) as [string[], string[]];
      expect(a).toHaveLength(5);
      for (const [index, line] of a.entries()) expect(b[index]).not.toBe(line);
      for (const [index, { spec }] of guests.entries()) {
        const { address } = (await host.host.get(spec.id)) ?? {};
        expect([a, b][index]?.[0]).toBe(spec.id.replace('_', '-').slice(0, 12));
        expect([a, b][index]?.[4]).toContain(` ${address}/32`);
      }
      const stranger = createAgentClient(host.host, one.spec.id, 'no');
      await expect(stranger.health()).rejects.toMatchObject({ code: 'agent_unauthorized' });

      for (const guest of guests) {
        // How far its clock is ahead of ours as it was when we asked: what the way took is in it.
        const began = performance.now();
        const { aheadMs } = await guest.agent.woke(wokeNow(), AbortSignal.timeout(COPY_MS));
        expect(aheadMs).toBeGreaterThanOrEqual(-100);
        expect(aheadMs - (performance.now() - began)).toBeLessThanOrEqual(100);
        const resolved = await run(guest, ['getent', 'hosts', 'auth.openai.com']);
        expect(resolved.code).toBe(0);
      }
      await openTickingPage(two);
      const before = await poll(
        () => ticksOf(two),
        (n) => n > 5,
        COPY_MS,
      );
      await poll(
        () => ticksOf(two),
        (n) => n > before,
        COPY_MS,
      );
      for (const { spec } of guests) await host.host.destroy(spec.id);
    });

    it(
      'lets a copy sleep and go on, also over a kill of its host service',
      async ({ skip }) => {
        const guest = await copy();
        const { id } = guest.spec;
        const described = await host.host.get(id);
        skip(described?.sleep === null, 'the driver cannot hibernate');
        await run(guest, ['sh', '-c', 'echo mark > mark']);
        await host.host.hibernate(id);
        await host.host.resume(id);
        await wake(guest.agent, AbortSignal.timeout(COPY_MS));
        await host.end('SIGKILL');
        await host.serve({ snapshotStart });
        expect(await host.host.get(id)).toMatchObject({ state: 'running', copied: true });
        expect((await run(guest, ['cat', 'mark'])).text).toBe('mark\n');
        // It went with its host service, and its copies did not.
        expect(await templates()).toBe(0);
        await host.host.destroy(id);
        const first = host.guest('browser', LIMITS);
        await host.host.put(first.spec);
        await poll(templates, (count) => count === 1, bootMs * 2);
        await host.host.destroy(first.spec.id);
      },
      bootMs * 3,
    );

    it('keeps what a copy that was killed wrote of itself', async ({ skip }) => {
      skip(name === 'namespace', 'systemd');
      const guest = await copy();
      const { id } = guest.spec;
      await run(guest, ['logger', '--priority', 'user.info', '--tag', 'person', 'mark']);
      // More than twice what its journald waits before it syncs.
      await run(guest, ['sleep', '12']);
      const facts = JSON.parse((await host.host.evidenceFile(id, 'facts-start.json')).toString('utf8'));
      expect(facts.guest.diskKiB.available).toBeGreaterThan(0);
      const exit = host.host.exit(id, 30);
      for (const { pid } of cgroupProcesses(`${cgroupOfInstance(bench.config.instance)}/${id}`)) {
        process.kill(pid, 'SIGKILL');
      }
      expect(await exit).not.toBeNull();
      const text = (await host.host.evidenceFile(id, 'journal.log')).toString('utf8');
      expect(text).toMatch(/^-- From the disk of a guest that has ended/);
      expect(text).toMatch(/ person\[\d+\]: mark$/m);
      await host.host.destroy(id);
    });

    it('boots a machine whose copy does not start', async () => {
      const machines = join(bench.config.dataDir, 'machines');
      const [template = 'none'] = await readdir(machines);
      // Whatever a driver keeps there.
      for (const name of await readdir(join(machines, template))) {
        await rm(join(machines, template, name), { recursive: true });
      }
      const guest = host.guest('browser', LIMITS);
      await host.host.put(guest.spec);
      const described = await host.host.get(guest.spec.id);
      expect(described).toMatchObject({ state: 'running' });
      expect(described?.copied).toBeUndefined();
      expect(await templates()).toBe(0);
      await host.host.destroy(guest.spec.id);
    });
  });
}
