import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type CredentialId, type MachineId, newMachineId, UserId } from '../../protocol/ids.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import type { Services } from '../services.ts';
import type { OpenDatabase } from '../store/database.ts';
import { requestMachine } from '../store/machines.ts';
import { DEFAULT_SETTINGS } from './context.ts';
import { WorkflowBench, waitFor } from './testing/bench.ts';

const USER = UserId.parse('ada');

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a stored credential', () => {
  let bench: WorkflowBench;
  let host: FakeHost;
  let open: OpenDatabase;
  let services: Services;

  beforeEach(async () => {
    bench = await WorkflowBench.start(postgres);
    ({ host, open, services } = bench);
  });
  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  /** Starts a login and gives it when the person may sign in. */
  const begin = async (account = 'default') => {
    const realm = 'test' as const;
    const request = { userId: USER, provider: 'codex', account, realm, expiresInSeconds: 60 } as const;
    const { id } = await services.logins.start(request);
    for await (const event of services.logins.events(id, 0, AbortSignal.timeout(20_000))) {
      if (event.name === 'waiting_for_person') break;
    }
    const { browserMachineId } = (await services.logins.get(id)) ?? {};
    if (browserMachineId == null) throw new Error('no browser machine');
    return { id, browser: browserMachineId };
  };
  const logIn = async (): Promise<{ machine: MachineId; credential: CredentialId }> => {
    const { id, browser } = await begin();
    host.agent(browser).signIn();
    const { error, cliMachineId, credentialId } = await bench.settled(id);
    expect(error).toBeNull();
    if (cliMachineId === null || credentialId === null) throw new Error('nothing was installed');
    return { machine: cliMachineId, credential: credentialId };
  };
  /** The credential as it is in a machine's home. */
  const inHome = (id: MachineId) => {
    const [file] = host.agent(id).disk.get('codex') ?? [];
    return Buffer.from(file?.contentBase64 ?? '', 'base64').toString();
  };

  it('comes back when the machine that should have it is started without it', async () => {
    const { machine } = await logIn();
    await services.machines.stop(machine);
    host.agent(machine).disk.delete('codex');
    expect(await services.machines.start(machine)).toMatchObject({ state: 'ready', error: null });
    expect(inHome(machine)).toContain('first');

    // Also when a command wakes it, and when its host lost the disk.
    await services.machines.stop(machine);
    host.forget(machine);
    const request = { argv: ['echo', 'hi'], timeoutMs: 5_000 };
    for await (const _ of services.machines.exec(machine, request, AbortSignal.timeout(10_000)));
    expect(inHome(machine)).toContain('first');
  });

  it('comes to the machine that follows the one that was removed', async () => {
    const { machine, credential } = await logIn();
    await services.machines.destroy(machine);
    expect(await services.credentials.get(credential)).toMatchObject({ holderMachineId: null });
    const { limits, display } = DEFAULT_SETTINGS;
    const next = await requestMachine(open.db, {
      id: newMachineId(),
      kind: 'cli',
      realm: 'test',
      userId: USER,
      sessionId: null,
      hostId: 'local',
      limits: limits.cli,
      display,
    });
    const request = { argv: ['echo', 'hi'], timeoutMs: 5_000 };
    for await (const _ of services.machines.exec(next.id, request, AbortSignal.timeout(10_000)));
    expect(inHome(next.id)).toContain('first');
    expect(await services.credentials.get(credential)).toMatchObject({ holderMachineId: next.id });
  });

  it('does not replace what the CLI renewed in its home', async () => {
    const { machine } = await logIn();
    await services.machines.stop(machine);
    host.agent(machine).disk.set('codex', codexFiles('renewed'));
    await services.machines.start(machine);
    expect(inHome(machine)).toContain('renewed');
  });

  it('replaces the file in the home when the vault got a newer version that was never installed', async () => {
    const { machine, credential } = await logIn();
    host.behaviour.files = codexFiles('second');
    const { id, browser } = await begin();
    const hold = host.hold('install');
    host.agent(browser).signIn();
    await hold.reached;
    host.kill(machine);
    hold.release();
    expect(await bench.settled(id)).toMatchObject({ state: 'failed' });
    await waitFor(async () => (await services.machines.get(machine))?.state === 'stopped');
    host.agent(machine).disk.set('codex', codexFiles('first'));
    expect(await services.credentials.get(credential)).toMatchObject({ version: 2 });
    await services.machines.start(machine);
    expect(inHome(machine)).toContain('second');
  });

  it('stays out of a machine while a browser machine of a login may have it', async () => {
    const { machine } = await logIn();
    await services.machines.stop(machine);
    host.agent(machine).disk.delete('codex');
    const { id } = await begin();
    await services.machines.start(machine);
    expect(inHome(machine)).toBe('');
    await services.logins.cancel(id);
    await bench.settled(id);
    await services.machines.stop(machine);
    await services.machines.start(machine);
    expect(inHome(machine)).toContain('first');
  });

  it('leaves the machine usable, with the reason on it, when it cannot be installed', async () => {
    const { machine } = await logIn();
    await services.machines.stop(machine);
    host.agent(machine).disk.delete('codex');
    await open.db
      .updateTable('credentials')
      .set({ sealed: Buffer.from('broken') })
      .execute();
    expect(await services.machines.start(machine)).toMatchObject({
      state: 'ready',
      error: { code: 'credential_install_failed' },
    });
  });

  it('is not removed while a login of it is under way', async () => {
    const { machine, credential } = await logIn();
    const { id } = await begin();
    await expect(services.credentials.remove(credential)).rejects.toMatchObject({ code: 'conflict' });
    expect(inHome(machine)).toContain('first');
    await services.logins.cancel(id);
    await bench.settled(id);
    await services.credentials.remove(credential);
    expect(inHome(machine)).toBe('');
  });

  it('is removed from a machine that is just starting', async () => {
    const { machine, credential } = await logIn();
    await services.machines.stop(machine);
    const hold = host.hold('boot');
    const starting = services.machines.start(machine);
    await hold.reached;
    const removing = services.credentials.remove(credential);
    hold.release();
    await removing;
    await starting;
    expect(inHome(machine)).toBe('');
    expect(await services.credentials.get(credential)).toBeUndefined();
    expect((await services.machines.get(machine))?.state).toBe('ready');
  });

  it('stays listed when its removal fails, and the machine sleeps again', async () => {
    const { machine, credential } = await logIn();
    await services.machines.stop(machine);
    host.behaviour.deleteFailure = true;
    await expect(services.credentials.remove(credential)).rejects.toMatchObject({ code: 'internal' });
    expect((await services.machines.get(machine))?.state).toBe('stopped');
    expect(await services.credentials.get(credential)).toBeDefined();
  });
});
