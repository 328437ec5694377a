/** Machines that hibernate: when, what wakes them, and what becomes of one that cannot go on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { type MachineId, newMachineId, UserId } from '../../protocol/ids.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createHostClient } from '../hosts/host-client.ts';
import type { Services } from '../services.ts';
import type { OpenDatabase } from '../store/database.ts';
import { requestMachine } from '../store/machines.ts';
import { readMachineEvents } from '../store/timeline.ts';
import { DEFAULT_SETTINGS } from './context.ts';
import { WorkflowBench } from './testing/bench.ts';

const LOST = new PolydevError('machine_resume_failed', 'its memory is gone').toReport();

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a machine that hibernates', () => {
  let bench: WorkflowBench;
  let host: FakeHost;
  let open: OpenDatabase;
  let services: Services;
  let id: MachineId;

  beforeEach(async () => {
    bench = await WorkflowBench.start(postgres);
    ({ host, open, services } = bench);
    const { limits, display } = DEFAULT_SETTINGS;
    const request = { kind: 'cli', realm: 'test', userId: UserId.parse('ada'), sessionId: null } as const;
    const more = { id: newMachineId(), hostId: 'local', limits: limits.cli, display };
    ({ id } = await requestMachine(open.db, { ...request, ...more }));
    await say('up');
  });
  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  const say = async (word: string): Promise<string> => {
    let text = '';
    const request = { argv: ['echo', word], timeoutMs: 5_000 };
    for await (const event of services.machines.exec(id, request, AbortSignal.timeout(20_000))) {
      if (event.type !== 'exit') text += event.text;
    }
    return text;
  };
  const state = async (): Promise<MachineState | undefined> => (await services.machines.get(id))?.state;
  const until = async (wanted: MachineState) => {
    const deadline = Date.now() + 30_000;
    for (let now = await state(); now !== wanted; now = await state()) {
      if (Date.now() > deadline) throw new Error(`it is ${now} and not ${wanted}`);
      await sleep(25);
    }
  };
  const states = async () =>
    (await readMachineEvents(open.db, id)).filter(({ kind }) => kind === 'state').map(({ name }) => name);
  const bootedTimes = async () => (await states()).filter((name) => name === 'booting').length;

  it('says so on its way, and goes on when asked', async () => {
    expect(await services.machines.hibernate(id)).toMatchObject({
      state: 'hibernated',
      actions: ['open_terminal', 'resume', 'stop', 'destroy'],
    });
    expect(await services.machines.resume(id)).toMatchObject({ state: 'ready', error: null });
    expect((await states()).slice(-4)).toEqual(['hibernating', 'hibernated', 'resuming', 'ready']);
    expect(host.agent(id).wakes).toBeGreaterThan(0);
    expect(await bootedTimes()).toBe(1);
  });

  it.each(['exec', 'terminal', 'start'] as const)('is woken by who needs it: %s', async (touch) => {
    await services.machines.hibernate(id);
    if (touch === 'exec') expect(await say('hi')).toBe('hi\n');
    if (touch === 'start') await expect(services.machines.start(id)).rejects.toThrow('does not fit');
    if (touch === 'terminal') {
      const terminal = await services.machines.terminal(id, { cols: 80, rows: 24 });
      const [first] = await terminal.stream.take(1).toArray();
      expect(String(first)).toBe('$ ');
      await terminal.close();
    }
    expect(await state()).toBe(touch === 'start' ? 'hibernated' : 'ready');
    expect(await bootedTimes()).toBe(1);
  });

  it('says that it ended, not that it could not fall asleep, when it died before', async () => {
    const hold = host.hold('hibernate');
    const asked = services.machines.hibernate(id).catch(() => undefined);
    await hold.reached;
    host.kill(id);
    hold.release();
    await asked;
    await until('stopped');
    expect((await services.machines.get(id))?.error?.code).toBe('machine_exited');
  });

  it('is not waited for when it died in its sleep: it starts from its disk', async () => {
    await services.machines.hibernate(id);
    // Whoever connects to a dead guest may wait for ever.
    const hold = host.hold('woke');
    const resumed = services.machines.resume(id);
    await hold.reached;
    host.kill(id);
    expect(await resumed).toMatchObject({ state: 'ready' });
    expect((await states()).slice(-5)).toEqual(['resuming', 'stopped', 'creating', 'booting', 'ready']);
    hold.release();
  }, 25_000);

  it('is woken when its person connects, and gets the credential', async () => {
    await services.machines.hibernate(id);
    const request = { provider: 'codex', account: 'default', realm: 'test', expiresInSeconds: 60 } as const;
    const session = await services.logins.start({ userId: UserId.parse('ada'), ...request });
    for await (const event of services.logins.events(session.id, 0, AbortSignal.timeout(30_000))) {
      const browser = (await services.logins.get(session.id))?.browserMachineId;
      if (event.name === 'waiting_for_person' && browser != null) host.agent(browser).signIn();
    }
    expect(await services.logins.get(session.id)).toMatchObject({ state: 'completed', cliMachineId: id });
    expect(host.agent(id).disk.has('codex')).toBe(true);
  });

  it('hibernates when nobody uses it, and not while somebody does', async () => {
    const terminal = await services.machines.terminal(id, { cols: 80, rows: 24 });
    await services.operation.changeSettings({ hibernateAfterSeconds: 1 });
    await sleep(2_500);
    expect(await state()).toBe('ready');
    terminal.stream.destroy();
    await until('hibernated');
    const [event] = (await readMachineEvents(open.db, id)).filter(({ name }) => name === 'hibernating');
    expect(event?.detail).toBe('idle');
    await services.operation.changeSettings({ hibernateAfterSeconds: 0 });
    expect(await say('again')).toBe('again\n');
    expect(await state()).toBe('ready');
  });

  it('goes on for two who need it in the middle of falling asleep', async () => {
    const hold = host.hold('hibernate');
    const going = services.machines.hibernate(id);
    await hold.reached;
    const needed = Promise.all([say('one'), say('two')]);
    hold.release();
    await going;
    expect(await needed).toEqual(['one\n', 'two\n']);
    expect(await state()).toBe('ready');
    expect(await bootedTimes()).toBe(1);
  });

  it('runs on, with the reason on it, when its host cannot let it sleep', async () => {
    host.behaviour.hibernateFailure = new PolydevError('machine_hibernate_failed', 'disk full').toReport();
    await expect(services.machines.hibernate(id)).rejects.toMatchObject({ code: 'machine_hibernate_failed' });
    expect(await services.machines.get(id)).toMatchObject({
      state: 'ready',
      error: { code: 'machine_hibernate_failed' },
    });
    expect(await say('on')).toBe('on\n');
  });

  it('starts from its disk when it cannot go on', async () => {
    await services.machines.hibernate(id);
    host.behaviour.resumeFailure = LOST;
    expect(await say('fresh')).toBe('fresh\n');
    expect(await services.machines.get(id)).toMatchObject({ state: 'ready', error: null });
    expect((await states()).slice(-5)).toEqual(['resuming', 'stopped', 'creating', 'booting', 'ready']);
  });

  it('is stopped once its host has lost what was frozen', async () => {
    await services.machines.hibernate(id);
    await createHostClient(host.socketPath).stop(id);
    await until('stopped');
    expect(await services.machines.get(id)).toMatchObject({ error: null });
  });

  it.each(['hibernate', 'resume'] as const)('is finished by the next controller: %s', async (point) => {
    if (point === 'resume') await services.machines.hibernate(id);
    const hold = host.hold(point);
    void services.machines[point](id).catch(() => undefined);
    await hold.reached;
    await bench.leave();
    hold.release();
    await bench.serve();
    ({ services } = bench);
    await until(point === 'resume' ? 'ready' : 'hibernated');
    expect(await say('hi')).toBe('hi\n');
    expect(await bootedTimes()).toBe(1);
  });

  it('can be stopped and removed', async () => {
    await services.machines.hibernate(id);
    expect(await services.machines.stop(id)).toMatchObject({ state: 'stopped' });
    expect(await say('hi')).toBe('hi\n');
    await services.machines.hibernate(id);
    expect(await services.machines.destroy(id)).toMatchObject({ state: 'destroyed' });
    expect(host.ids).toEqual([]);
  });
});
