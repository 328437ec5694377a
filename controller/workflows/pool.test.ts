/** Warm machines: nobody's until they are claimed, checked then, and replaced when they are gone, broken or too many. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Machine } from '../../protocol/api.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { ImageId, type MachineId, type SessionId, UserId } from '../../protocol/ids.ts';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createAgentClient } from '../hosts/agent-client.ts';
import { createHostClient } from '../hosts/host-client.ts';
import type { Services } from '../services.ts';
import { WorkflowBench, waitFor } from './testing/bench.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('the pool of warm machines', () => {
  let bench: WorkflowBench;
  let host: FakeHost;
  let services: Services;

  beforeEach(async () => {
    bench = await WorkflowBench.start(postgres, {
      settings: { operator: { warmRefillSeconds: 0 } },
    });
    ({ host, services } = bench);
  });
  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  const warm = async (): Promise<Machine[]> =>
    (await services.machines.list({})).filter(({ pooled, state }) => pooled && state === 'ready');
  /** Waits for so many, and gives their ids. */
  const filled = async (count: number): Promise<MachineId[]> => {
    await waitFor(async () => (await warm()).length === count);
    return (await warm()).map(({ id }) => id);
  };
  const start = async (user = 'ada', realm: 'internet' | 'test' = 'test') =>
    (
      await services.logins.start({
        userId: UserId.parse(user),
        provider: 'codex',
        account: 'default',
        realm,
        expiresInSeconds: 60,
      })
    ).id;
  /** The machine of a session that waits for its person. */
  const machineOf = async (id: SessionId): Promise<Machine> => {
    await waitFor(async () => (await services.logins.get(id))?.state === 'waiting_for_person');
    const machine = (await services.logins.get(id))?.browserMachineId;
    return (await services.machines.get(machine as MachineId)) as Machine;
  };
  const poolOf = async () => (await services.hosts.list())[0]?.pool;

  it('gives a session a machine that was nobody’s, with a token of its own, and fills up again', async () => {
    await services.operation.changeSettings({ warmTestMachines: 1 });
    const [first] = (await filled(1)) as [MachineId];
    expect(await services.machines.get(first)).toMatchObject({ userId: 'polydev:pool', sessionId: null });
    const { token } = bench.vault.deriveMachineToken(first);
    const agent = createAgentClient(createHostClient(host.socketPath), first, token);
    await expect(agent.health()).rejects.toMatchObject({ code: 'agent_unauthorized' });
    const id = await start();
    expect(await machineOf(id)).toMatchObject({ id: first, userId: 'ada', sessionId: id, pooled: false });
    expect(await agent.health()).toMatchObject({ ready: true });
    expect(host.agent(first).wakes).toBeGreaterThan(0);
    const [next] = await filled(1);
    expect(next).not.toBe(first);
    expect(await poolOf()).toEqual({ wanted: 1, ready: 1, starting: 0, problem: null });
    host.agent(first).signIn();
    for await (const _ of services.logins.events(id, 0, AbortSignal.timeout(30_000)));
    expect(await services.logins.get(id)).toMatchObject({ state: 'completed' });
    expect((await services.machines.get(first))?.state).toBe('destroyed');
  });

  it('gives one machine to one of two sessions, and none of another realm', async () => {
    await services.operation.changeSettings({ warmTestMachines: 1, warmRefillSeconds: 600 });
    const [only] = await filled(1);
    const other = await machineOf(await start('eve', 'internet'));
    expect(other.id).not.toBe(only);
    const ids = await Promise.all([start('ada'), start('bob')]);
    const machines = await Promise.all(ids.map(machineOf));
    expect(new Set(machines.map(({ id }) => id)).size).toBe(2);
    expect(machines.map(({ id }) => id)).toContain(only);
  });

  it('never hands out one that is broken, keeps its evidence and replaces it', async () => {
    await services.operation.changeSettings({ warmTestMachines: 1, warmRefillSeconds: 600 });
    const [broken] = (await filled(1)) as [MachineId];
    host.behaviour.healthFailure = new PolydevError('desktop_failed', 'Chromium ended').toReport();
    const machine = await machineOf(await start());
    expect(machine.id).not.toBe(broken);
    await waitFor(async () => (await services.machines.get(broken))?.state === 'destroyed');
    expect((await services.machines.get(broken))?.error).toMatchObject({ code: 'desktop_failed' });
    expect(host.uploads).toContain(`${broken}/agent.log`);
  });

  it('goes on with a new machine when the controller ended in the middle of a claim', async () => {
    await services.operation.changeSettings({ warmTestMachines: 1, warmRefillSeconds: 600 });
    const [half] = (await filled(1)) as [MachineId];
    const hold = host.hold('woke');
    const id = await start();
    await hold.reached;
    await bench.leave();
    hold.release();
    await bench.serve();
    ({ services } = bench);
    const machine = await machineOf(id);
    host.agent(machine.id).signIn();
    for await (const _ of services.logins.events(id, 0, AbortSignal.timeout(30_000)));
    expect(await services.logins.get(id)).toMatchObject({ state: 'completed', error: null });
    await waitFor(async () => (await services.machines.get(half))?.state === 'destroyed');
  });

  it('starts none while the host is short, says so, and gives back what it has when it is very short', async () => {
    host.behaviour.health = { memoryMiB: { total: 8192, available: 3000 } };
    await services.operation.changeSettings({ warmTestMachines: 1 });
    await waitFor(async () => (await poolOf())?.problem === 'only 3000 MiB of memory are free');
    await sleep(500);
    expect(host.ids).toEqual([]);
    delete host.behaviour.health;
    await filled(1);
    host.behaviour.health = { memoryMiB: { total: 8192, available: 500 } };
    await waitFor(() => host.ids.length === 0);
  });

  it('replaces what its host has lost, what is of an older image and what is too much', async () => {
    await services.operation.changeSettings({ warmTestMachines: 2 });
    const before = await filled(2);
    host.forget(before[0] as MachineId);
    await waitFor(async () => !(await warm()).some(({ id }) => id === before[0]));
    await filled(2);
    expect((await services.machines.get(before[0] as MachineId))?.error).toBeNull();
    const aged = await filled(2);
    host.behaviour.health = { image: ImageId.parse('fedcba9876543210') };
    await waitFor(async () => (await warm()).every(({ id }) => !aged.includes(id)));
    delete host.behaviour.health;
    await services.operation.changeSettings({ warmTestMachines: 0 });
    await waitFor(() => host.ids.length === 0);
    // The machine is gone from the host a moment before its row says so.
    await expect.poll(poolOf, { timeout: 10_000 }).toMatchObject({ wanted: 0, ready: 0, starting: 0 });
  });

  it('waits after one that did not boot, with its reason on it', async () => {
    host.behaviour.bootFailure = new PolydevError('desktop_failed', 'no X server').toReport();
    await services.operation.changeSettings({ warmTestMachines: 1 });
    const failed = async () =>
      (await services.machines.list({})).filter(({ error }) => error?.code === 'desktop_failed');
    await waitFor(async () => (await failed()).length === 1);
    await waitFor(async () => (await failed())[0]?.state === 'destroyed');
    await sleep(1_000);
    expect(await failed()).toHaveLength(1);
    expect(host.destroyed).toHaveLength(1);
  });
});
