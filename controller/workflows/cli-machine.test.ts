/** The person’s CLI machine beyond the login that made it. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createHostClient } from '../hosts/host-client.ts';
import type { Services } from '../services.ts';
import { waitFor } from './testing/bench.ts';
import { browserOf, LoginBench } from './testing/login-bench.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a CLI machine', () => {
  let logins: LoginBench;
  let host: FakeHost;
  let services: Services;

  beforeEach(async () => {
    logins = await LoginBench.start(postgres);
    ({ host, services } = logins);
  });
  afterEach(async () => {
    await logins[Symbol.asyncDispose]();
  });

  it('uses the same CLI machine again, starting it when it was stopped, and raises the version', async () => {
    const first = await logins.start();
    const { cliMachineId, credentialId } = await logins.signIn(first.id);
    if (cliMachineId === null || credentialId === null) throw new Error('nothing was installed');
    expect((await services.machines.stop(cliMachineId)).state).toBe('stopped');

    const second = await logins.start();
    const done = await logins.signIn(second.id);
    expect(done).toMatchObject({ state: 'completed', cliMachineId, credentialId });
    expect(await services.credentials.get(credentialId)).toMatchObject({ version: 2 });
    expect((await services.machines.get(cliMachineId))?.state).toBe('ready');

    await services.credentials.remove(credentialId);
    expect(host.agent(cliMachineId).disk.get('codex')).toBeUndefined();
    expect(await services.credentials.get(credentialId)).toBeUndefined();
    expect((await services.machines.destroy(cliMachineId)).state).toBe('destroyed');
    expect(host.ids).toEqual([]);
  });

  it('starts the CLI machine again that its host had stopped', async () => {
    const { cliMachineId } = await logins.connect();
    const second = await logins.start();
    const waiting = await logins.until(second.id, 'waiting_for_person');
    const hold = host.hold('files');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    await createHostClient(host.socketPath).stop(cliMachineId);
    hold.release();
    const done = await logins.bench.settled(second.id);
    expect(done).toMatchObject({ state: 'completed', cliMachineId, error: null });
  });

  it('destroys what the host runs for nobody and names what the host lost', async () => {
    const { session, cliMachineId } = await logins.connect();
    const limits = { cpus: 1, memoryMiB: 64, pids: 32 };
    const stray = { kind: 'browser', realm: 'test', limits, display: { width: 800, height: 600 } } as const;
    const strayId = browserOf(session);
    const client = createHostClient(host.socketPath);
    await client.put({ id: strayId, agentTokenHash: '0'.repeat(64), ...stray });
    await waitFor(() => !host.ids.includes(strayId));

    host.forget(cliMachineId);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    expect((await services.machines.get(cliMachineId))?.error?.code).toBe('machine_exited');
  });

  it('lets no CLI machine run on that did not start, and keeps its disk', async () => {
    const { cliMachineId } = await logins.connect();
    await services.machines.stop(cliMachineId);
    host.behaviour.bootFailure = new PolydevError('image_verification_failed', 'no CLI').toReport();
    await expect(services.machines.start(cliMachineId)).rejects.toThrow('no CLI');
    expect(await services.machines.get(cliMachineId)).toMatchObject({
      state: 'stopped',
      error: { code: 'image_verification_failed' },
      actions: ['open_terminal', 'start', 'destroy'],
    });
    const client = createHostClient(host.socketPath);
    expect((await client.get(cliMachineId))?.state).toBe('stopped');
    // Also one that runs although it should not.
    delete host.behaviour.bootFailure;
    host.run(cliMachineId);
    await waitFor(async () => (await client.get(cliMachineId))?.state === 'stopped');

    host.behaviour.putFailure = new PolydevError('addresses_exhausted', 'no address').toReport();
    await expect(services.machines.start(cliMachineId)).rejects.toThrow('no address');
    expect(await services.machines.get(cliMachineId)).toMatchObject({
      state: 'stopped',
      error: { code: 'addresses_exhausted' },
    });
    delete host.behaviour.putFailure;
    expect(await services.machines.start(cliMachineId)).toMatchObject({ state: 'ready', error: null });
    const [file] = host.agent(cliMachineId).disk.get('codex') ?? [];
    expect(Buffer.from(file?.contentBase64 ?? '', 'base64').toString()).toContain(logins.canary);
  });

  it('keeps a CLI machine that ended by itself, to be started again', async () => {
    const { cliMachineId } = await logins.connect();
    host.kill(cliMachineId);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    expect((await services.machines.get(cliMachineId))?.error).toMatchObject({ code: 'machine_exited' });
    expect(await services.credentials.list({})).toMatchObject([{ holderMachineId: cliMachineId }]);
    expect(await services.machines.start(cliMachineId)).toMatchObject({ state: 'ready', error: null });
  });

  it('starts once for several who need it at the same moment', async () => {
    const { cliMachineId } = await logins.connect();
    await services.machines.stop(cliMachineId);
    const many = Array.from({ length: 6 }, () =>
      services.machines.terminal(cliMachineId, { cols: 80, rows: 24 }),
    );
    for (const terminal of await Promise.all(many)) {
      await terminal.close();
      terminal.stream.destroy();
    }
    expect(await services.machines.get(cliMachineId)).toMatchObject({ state: 'ready', error: null });
  });

  it('offers terminals and commands in the CLI machine', async () => {
    const { cliMachineId } = await logins.connect();
    await services.machines.stop(cliMachineId);
    const terminal = await services.machines.terminal(cliMachineId, { cols: 80, rows: 24 });
    const [first] = await terminal.stream.take(1).toArray();
    expect(String(first)).toBe('$ ');
    await terminal.resize({ cols: 100, rows: 30 });
    await terminal.close();
    const said = [];
    const request = { argv: ['echo', 'hi'], timeoutMs: 5_000 };
    for await (const event of services.machines.exec(cliMachineId, request, AbortSignal.timeout(10_000))) {
      said.push(event);
    }
    expect(said).toEqual([
      { type: 'stderr', text: 'hi\n' },
      { type: 'exit', code: 0, signal: null, timedOut: false },
    ]);
    const [one] = await services.hosts.list();
    expect(one).toMatchObject({ ok: true, driver: 'namespace' });
  });
});
