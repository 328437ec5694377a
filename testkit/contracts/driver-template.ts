/**
 * Templates at the level of a driver: machines that begin as copies of one that has booted, each a machine of its own. CLI machines,
 * which boot sooner than browser machines do: it runs where a page would take a quarter of an hour. What a host service makes of
 * templates is in driver-copies.ts.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AgentClient, createAgentClient } from '../../controller/hosts/agent-client.ts';
import { wake, wokeNow } from '../../controller/hosts/wake.ts';
import { withRetries } from '../../controller/workflows/retries.ts';
import type { HostConfig } from '../../host/config.ts';
import { chooseDriver } from '../../host/drivers/auto.ts';
import type { Driver, Machine, Template } from '../../host/drivers/driver.ts';
import { openImageStore } from '../../host/images/store.ts';
import { auditSettled } from '../../host/leaks.ts';
import { Network } from '../../host/network/network.ts';
import { claimIds, releaseIds } from '../../host/system/ids.ts';
import { Leases } from '../../host/system/leases.ts';
import { newMachineId } from '../../protocol/ids.ts';
import { AGENT_PORT, type MachineSpec } from '../../protocol/machine.ts';
import { run } from './host-process.ts';

export interface DriverTemplateContract {
  name: HostConfig['driver'];
  /** What this computer, or the driver, lacks for it; undefined: nothing. */
  missing: string | undefined;
  /** Folders and settings of an instance of its own. */
  bench: () => Disposable & { config: HostConfig };
  /** Milliseconds that a machine may take until its agent is ready; every other step gets as many. */
  bootMs: number;
  /** How many times longer than usual the way to a guest may take; default 1. */
  patience?: number;
}

/** What tells two machines apart, and one from itself a moment later. */
const SELF = `hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/uuid
  node -p 'crypto.randomBytes(16).toString("hex")'; ip -4 -br addr show eth0; cat /sys/class/net/eth0/address`;
/** How far a clock may be off: what the way to the guest takes comes on top. */
const CLOCK_MS = 100;

/** A machine that its agent's token is known of. */
interface Known {
  machine: Machine;
  token: string;
  agent: AgentClient;
}

const specOf = (token: string): MachineSpec => ({
  ...{ id: newMachineId(), kind: 'cli', realm: 'test', display: { width: 1280, height: 800 } },
  // One processor: with two a copy's clock was not the same twice on a busy emulated computer (docs/drivers.md, in the KVM bench).
  limits: { cpus: 1, memoryMiB: 768, pids: 512 },
  agentTokenHash: createHash('sha256').update(token).digest('hex'),
});

/** The driver of an instance without its host service, and what it stands on. */
async function openDriver(config: HostConfig, signal: AbortSignal) {
  const { instance, dataDir, runDir, sharedDir, checkout, nodePath, slowdown, uplink, subnet } = config;
  const machinesFolder = join(dataDir, 'machines');
  mkdirSync(runDir, { recursive: true, mode: 0o711 });
  mkdirSync(machinesFolder, { recursive: true, mode: 0o700 });
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rmSync(runDir, { recursive: true, force: true }));
  const idLeases = new Leases(join(sharedDir, 'ids'));
  const ids = await claimIds(idLeases, runDir, undefined);
  undo.defer(() => releaseIds(idLeases, runDir));
  const network = undo.use(
    await Network.open(
      {
        ...{ instance, runFolder: runDir, idpStateFolder: join(dataDir, 'idp'), uplink, subnet, slowdown },
        forwardingFolder: join(sharedDir, 'forwarding'),
        idp: { checkout, nodePath, script: 'testkit/idp/main.ts' },
        uids: { routerDns: ids + 1, idpDns: ids + 2, idp: ids + 3 },
        log: pino({ level: 'silent' }),
      },
      [],
      signal,
    ),
  );
  const images = openImageStore(config.imageCacheDir, { runDir });
  undo.defer(() => images.unmountAll());
  const input = { config, running: [], images, network, idLeases, machinesFolder, argv: undefined };
  // What a trial says of it is a row of the driver's own contract.
  const choose = async (): Promise<Driver> => (await chooseDriver({ ...input, signal })).driver;
  const close = undo.move();
  return { choose, machinesFolder, [Symbol.asyncDispose]: () => close.disposeAsync() };
}

export function driverTemplateContract(contract: DriverTemplateContract): void {
  const { name, missing, bootMs, patience = 1 } = contract;
  const nearMs = CLOCK_MS * patience;
  const title = `${name} driver: a template and its copies (needs ${missing ?? 'nothing more'})`;

  describe.skipIf(missing !== undefined)(title, { timeout: bootMs }, () => {
    const soon = (): AbortSignal => AbortSignal.timeout(bootMs);
    let bench: ReturnType<DriverTemplateContract['bench']>;
    let instance: Awaited<ReturnType<typeof openDriver>>;
    let driver: Driver;
    let template: Template;
    let made: Known[] = [];

    const known = (machine: Machine, token: string): Known => {
      const dial = (_: unknown, signal = soon(), port = AGENT_PORT) => machine.dial(port, signal);
      return { machine, token, agent: createAgentClient({ dial }, machine.id, token, driver.slowdown) };
    };
    const copy = async (): Promise<Known> => {
      const token = randomBytes(16).toString('hex');
      return known(await template.start(specOf(token), soon()), token);
    };
    // As whoever speaks to machines: Firecracker gives a connection 2 s for its beginning and its end, and the guest of a busy emulated
    // computer needs more at times.
    const again = <T>(work: () => Promise<T>): Promise<T> =>
      withRetries(soon(), work, ['machine_unreachable']);
    const said = async (each: Known, ...argv: string[]): Promise<string> =>
      (await again(() => run(each, argv, bootMs))).text;
    const expectRightClock = async ({ agent }: Known): Promise<void> => {
      const { aheadMs, tookMs } = await again(async () => {
        const began = performance.now();
        const told = await agent.woke(wokeNow(), soon());
        return { aheadMs: told.aheadMs, tookMs: performance.now() - began };
      });
      // How far it is ahead of ours as it was when we asked: what the way took is in it.
      expect(aheadMs).toBeGreaterThanOrEqual(-nearMs);
      expect(aheadMs - tookMs).toBeLessThanOrEqual(nearMs);
    };

    beforeAll(async () => {
      bench = contract.bench();
      bench.config.driver = name;
      instance = await openDriver(bench.config, soon());
      driver = await instance.choose();
      if (driver.makeTemplate === undefined) throw new Error(`${name} makes no templates`);
      template = await driver.makeTemplate(specOf('of nobody'), soon());
    }, bootMs * 2);
    afterAll(async () => {
      for (const { machine } of made) {
        await machine[Symbol.asyncDispose]();
        rmSync(join(instance.machinesFolder, machine.id), { recursive: true, force: true });
      }
      await template?.[Symbol.asyncDispose]();
      await driver?.[Symbol.asyncDispose]();
      await instance?.[Symbol.asyncDispose]();
      const left = await auditSettled(bench.config);
      bench[Symbol.dispose]();
      expect(left).toEqual([]);
    }, bootMs);

    it('leaves nothing of a template that was not made', async () => {
      const before = readdirSync(instance.machinesFolder);
      await expect(driver.makeTemplate?.(specOf('of nobody'), AbortSignal.abort())).rejects.toThrow();
      expect(readdirSync(instance.machinesFolder)).toEqual(before);
    });

    it('starts two at once: each is a machine of its own, with the right time', async () => {
      const began = Date.now();
      const both = await Promise.allSettled([copy(), copy()]);
      made = both.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      expect(both.map((one) => (one.status === 'rejected' ? one.reason : undefined))).toEqual([
        undefined,
        undefined,
      ]);
      const [one, two] = made as [Known, Known];
      for (const each of made) {
        expect(each.machine.copied).toBe(true);
        const { machineId, stamps, ready } = await again(() => each.agent.health(soon()));
        expect({ machineId, ready }).toEqual({ machineId: each.machine.id, ready: true });
        // What the template had reached is stamped by this one, after it was asked for.
        expect(stamps.length).toBeGreaterThan(0);
        for (const { at } of stamps) expect(Date.parse(at)).toBeGreaterThanOrEqual(began - nearMs);
        await expectRightClock(each);
      }
      const selves = await Promise.all(made.map((each) => said(each, 'sh', '-c', SELF)));
      const [a, b] = selves.map((text) => text.trim().split('\n')) as [string[], string[]];
      expect(a).toHaveLength(6);
      for (const [index, line] of a.entries()) expect(b[index]).not.toBe(line);
      for (const [index, { machine }] of made.entries()) {
        expect([a, b][index]?.[0]).toBe(machine.id.replace('_', '-').slice(0, 12));
        expect([a, b][index]?.[4]).toContain(` ${machine.address}/32`);
      }
      // Neither a stranger's token nor its twin's, which had the same one before.
      for (const token of ['no', two.token]) {
        await expect(known(one.machine, token).agent.health(soon())).rejects.toMatchObject({
          code: 'agent_unauthorized',
        });
      }
      expect(await said(one, 'sh', '-c', 'echo one > ~/mark; cat ~/mark')).toBe('one\n');
      expect(await said(two, 'sh', '-c', 'ls ~/mark || echo two')).toContain('two\n');
      expect(await said(two, 'getent', 'hosts', 'auth.openai.com')).toContain('auth.openai.com');
    });

    it('lets them go on when their template and whoever started them are gone, also through a sleep', async () => {
      const [one, two] = made as [Known, Known];
      await template[Symbol.asyncDispose]();
      await expect(copy()).rejects.toMatchObject({ code: 'machine_start_failed' });
      const ids = made.map(({ machine }) => machine.id);
      expect(readdirSync(instance.machinesFolder).sort()).toEqual([...ids].sort());
      await one.machine.hibernate?.(soon());
      await driver[Symbol.asyncDispose]();
      // As a new host service has it.
      driver = await instance.choose();
      const adopted = await driver.adopt(two.machine.id);
      expect(adopted).toMatchObject({ copied: true, address: two.machine.address });
      // Nobody but whoever started it speaks to it while it runs on: here that is still this process.
      await adopted?.hibernate?.(soon());
      const woken: Known[] = [];
      for (const { machine, token } of made) {
        const resumed = await driver.resume?.(machine.spec, soon());
        expect(resumed).toMatchObject({ copied: true, address: machine.address });
        if (resumed !== undefined) woken.push(known(resumed, token));
      }
      made = woken;
      const [first, second] = made as [Known, Known];
      for (const each of made) {
        await again(() => wake(each.agent, soon()));
        await expectRightClock(each);
      }
      expect(await said(first, 'sh', '-c', 'cat ~/mark')).toBe('one\n');
      expect(await said(second, 'sh', '-c', 'echo two > ~/mark; cat ~/mark')).toBe('two\n');
    });
  });
}
