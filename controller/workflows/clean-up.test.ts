/** What stays of logins that failed: how long, without what, and across the end of a controller. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Machine, Session } from '../../protocol/api.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { type MachineId, newMachineId, type SessionId, UserId } from '../../protocol/ids.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createHostClient } from '../hosts/host-client.ts';
import type { Services } from '../services.ts';
import { WorkflowBench, waitFor } from './testing/bench.ts';

const BROKEN = new PolydevError('desktop_failed', 'no X server').toReport();

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('the machine of a login that failed', () => {
  let bench: WorkflowBench;
  let host: FakeHost;
  let services: Services;
  beforeEach(async () => {
    bench = await WorkflowBench.start(postgres);
    ({ host, services } = bench);
  });
  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  const start = (user = 'ada', options: { keepFailed?: boolean; expiresInSeconds?: number } = {}) =>
    services.logins.start({
      userId: UserId.parse(user),
      provider: 'codex',
      account: 'default',
      realm: 'test',
      expiresInSeconds: 60,
      ...options,
    });
  const machineOf = async ({ browserMachineId }: Session): Promise<Machine> => {
    const machine = browserMachineId === null ? undefined : await services.machines.get(browserMachineId);
    if (machine === undefined) throw new Error('no machine');
    return machine;
  };
  const failed = async (user?: string, options?: Parameters<typeof start>[1]): Promise<Machine> => {
    host.behaviour.bootFailure = BROKEN;
    const { id } = await start(user, options);
    return machineOf(await bench.settled(id));
  };
  const gone = async (id: MachineId) => (await services.machines.get(id))?.state === 'destroyed';
  const waiting = async (id: SessionId): Promise<Session> => {
    await waitFor(async () => (await services.logins.get(id))?.state === 'waiting_for_person');
    return (await services.logins.get(id)) as Session;
  };

  it('goes at once unless somebody said otherwise', async () => {
    const machine = await failed();
    expect(machine).toMatchObject({ state: 'destroyed', removeAt: null });
    expect(host.ids).toEqual([]);
  });

  it('stays for its grace period, as the setting says', async () => {
    await services.operation.changeSettings({ failedGraceSeconds: 2 });
    const machine = await failed();
    expect(machine).toMatchObject({ state: 'failed', error: BROKEN, actions: ['destroy'] });
    expect(Date.parse(machine.removeAt ?? '')).toBeGreaterThan(Date.parse(machine.createdAt));
    expect(host.ids).toEqual([machine.id]);
    await waitFor(() => gone(machine.id));
    expect(host.ids).toEqual([]);
  });

  it('is kept when the switch is on, can be looked at, and is removed by hand', async () => {
    await services.operation.changeSettings({ keepFailed: true });
    const machine = await failed();
    const { kept, settings } = await services.operation.cleanUp();
    expect(kept).toEqual([machine]);
    expect(settings.keepFailed).toBe(true);
    expect(await services.machines.console(machine.id)).toBe('hello');
    expect(await services.machines.evidence(machine.id)).not.toEqual([]);
    expect((await services.machines.destroy(machine.id)).state).toBe('destroyed');
    expect(host.ids).toEqual([]);
    expect((await services.operation.cleanUp()).kept).toEqual([]);
  });

  it('is kept or not as its own login says, whatever the setting', async () => {
    const kept = await failed('ada', { keepFailed: true });
    expect(kept.state).toBe('failed');
    await services.operation.changeSettings({ keepFailed: true });
    const other = await failed('bob', { keepFailed: false });
    expect(other.state).toBe('destroyed');
  });

  it('is not kept when the login was cancelled or went well', async () => {
    await services.operation.changeSettings({ keepFailed: true, failedGraceSeconds: 600 });
    const first = await start();
    await waiting(first.id);
    await services.logins.cancel(first.id);
    expect(await machineOf(await bench.settled(first.id))).toMatchObject({ state: 'destroyed' });
    const second = await start('bob');
    host.agent((await waiting(second.id)).browserMachineId as MachineId).signIn();
    expect(await machineOf(await bench.settled(second.id))).toMatchObject({ state: 'destroyed' });
  });

  it('holds no credential while it is kept, and keeps nobody from connecting again', async () => {
    await services.operation.changeSettings({ keepFailed: true });
    const { id } = await start('ada', { expiresInSeconds: 5 });
    const session = await waiting(id);
    const agent = host.agent(session.browserMachineId as MachineId);
    // The CLI has written its files, but nobody noticed in time.
    agent.disk.set('codex', codexFiles('late'));
    const machine = await machineOf(await bench.settled(id));
    expect(machine).toMatchObject({ state: 'failed', error: { code: 'login_expired' } });
    expect(agent.disk.has('codex')).toBe(false);
    const again = await start();
    host.agent((await waiting(again.id)).browserMachineId as MachineId).signIn();
    const done = await bench.settled(again.id);
    expect(done.state).toBe('completed');
    await services.machines.stop(done.cliMachineId as MachineId);
    host.agent(done.cliMachineId as MachineId).disk.delete('codex');
    await services.machines.start(done.cliMachineId as MachineId);
    expect(host.agent(done.cliMachineId as MachineId).disk.has('codex')).toBe(true);
  });

  it('goes when it may hold a credential that cannot be removed', async () => {
    await services.operation.changeSettings({ keepFailed: true });
    host.behaviour.deleteFailure = true;
    const { id } = await start('ada', { expiresInSeconds: 5 });
    await waiting(id);
    expect(await machineOf(await bench.settled(id))).toMatchObject({ state: 'destroyed' });
  });

  it('is removed when newer ones fill the bound', async () => {
    await services.operation.changeSettings({ keepFailed: true, keepAtMost: 2 });
    const machines = [];
    for (const user of ['a', 'b', 'c']) machines.push(await failed(user));
    const [oldest, ...newer] = machines.map(({ id }) => id);
    await waitFor(() => gone(oldest as MachineId));
    expect((await services.operation.cleanUp()).kept.map(({ id }) => id)).toEqual(newer);
    expect(host.ids.sort()).toEqual([...newer].sort());
  });

  it('keeps its time when the controller starts again, and goes then', async () => {
    await services.operation.changeSettings({ failedGraceSeconds: 15 });
    const machine = await failed();
    await bench.leave();
    await bench.serve();
    ({ services } = bench);
    expect(await services.machines.get(machine.id)).toEqual(machine);
    await waitFor(() => gone(machine.id));
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(machine.removeAt ?? ''));
  });

  it('leaves a machine that is in no database for its grace period, counted across restarts', async () => {
    await services.operation.changeSettings({ orphanGraceSeconds: 600 });
    const id = newMachineId();
    await createHostClient(host.socketPath).put({
      id,
      kind: 'cli',
      realm: 'test',
      limits: { cpus: 1, memoryMiB: 64, pids: 32 },
      display: { width: 800, height: 600 },
      agentTokenHash: '0'.repeat(64),
    });
    const seen = async () => (await services.operation.cleanUp()).orphans;
    await waitFor(async () => (await seen()).length === 1);
    const [before] = await seen();
    expect(before).toMatchObject({ id, hostId: 'local' });
    await bench.leave();
    await bench.serve();
    ({ services } = bench);
    expect(await seen()).toEqual([before]);
    expect(host.ids).toEqual([id]);
    await services.operation.changeSettings({ orphanGraceSeconds: 0 });
    await waitFor(() => host.ids.length === 0);
    await waitFor(async () => (await seen()).length === 0);
  });

  it('refuses a person who has as much as one may have', async () => {
    await services.operation.changeSettings({ machinesPerPerson: 1 });
    const { id } = await start();
    await waiting(id);
    const second = {
      userId: UserId.parse('ada'),
      provider: 'codex',
      account: 'work',
      realm: 'test',
    } as const;
    await expect(services.logins.start({ ...second, expiresInSeconds: 60 })).rejects.toMatchObject({
      code: 'quota_exceeded',
    });
    expect((await start('bob')).state).toBe('queued');
    await services.logins.cancel(id);
    await bench.settled(id);
    await services.operation.changeSettings({ machinesPerPerson: 10, diskMiBPerPerson: 1024 });
    await expect(start()).rejects.toThrow('the disks of the machines of ada');
  });
});
