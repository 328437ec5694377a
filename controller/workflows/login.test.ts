import { randomUUID } from 'node:crypto';
import { type Logger, pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Session } from '../../protocol/api.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { type SessionId, UserId } from '../../protocol/ids.ts';
import type { SessionState } from '../../protocol/lifecycles.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import type { FakeHost, Point } from '../../testkit/fakes/host.ts';
import { searchDatabase, startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createHostClient } from '../hosts/host-client.ts';
import type { Services } from '../services.ts';
import { pruneWorkflows } from './engine.ts';
import { WorkflowBench, waitFor } from './testing/bench.ts';

const USER = UserId.parse('ada');

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a login session', () => {
  let bench: WorkflowBench;
  let host: FakeHost;
  let services: Services;
  let canary: string;
  let logged: string;
  let log: Logger;

  beforeEach(async () => {
    canary = `canary${randomUUID().replaceAll('-', '')}`;
    logged = '';
    log = pino({ level: 'trace' }, { write: (line: string) => (logged += line) });
    bench = await WorkflowBench.start(postgres, { canary, log });
    ({ host, services } = bench);
  });
  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  const start = (options: { realm?: 'test' | 'internet'; expiresInSeconds?: number } = {}) =>
    services.logins.start({
      userId: USER,
      provider: 'codex',
      account: 'default',
      realm: options.realm ?? 'test',
      expiresInSeconds: options.expiresInSeconds ?? 60,
    });
  const read = async (id: SessionId): Promise<Session> => {
    const session = await services.logins.get(id);
    if (session === undefined) throw new Error('the session is gone');
    return session;
  };
  /** Waits until the session has entered a state. */
  const until = async (id: SessionId, state: SessionState): Promise<Session> => {
    const names: string[] = [];
    for await (const event of services.logins.events(id, 0, AbortSignal.timeout(20_000))) {
      if (event.subject !== 'session' || event.kind !== 'state') continue;
      names.push(event.name);
      if (event.name === state) return read(id);
    }
    throw new Error(`never ${state}, but ${names.join(' ')}: ${JSON.stringify((await read(id)).error)}`);
  };
  /** Follows the events to their end: the session has ended and its machine is gone. */
  const browserOf = (session: Session) => {
    if (session.browserMachineId === null) throw new Error('no browser machine');
    return session.browserMachineId;
  };
  const expectBrowserGone = async (session: Session) => {
    expect(host.ids).not.toContain(session.browserMachineId);
    if (session.browserMachineId === null) return;
    const machine = await services.machines.get(session.browserMachineId);
    expect(machine?.state).toBe('destroyed');
  };

  it('runs from click to a CLI that is logged in', async () => {
    const { id } = await start();
    const waiting = await until(id, 'waiting_for_person');
    expect(waiting.loginUrl).toContain('https://auth.openai.com/oauth/authorize');
    expect(waiting.actions).toEqual(['cancel', 'view', 'input']);
    await services.logins.input(id, 'code');
    const agent = host.agent(browserOf(waiting));
    expect(agent.inputs).toEqual(['{"text":"code"}']);
    const desktop = await services.machines.desktop(id);
    desktop.destroy();
    agent.signIn();

    const done = await bench.settled(id);
    expect(done.error).toBeNull();
    expect(done.state).toBe('completed');
    expect(done.verification).toBe('Logged in using ChatGPT');
    await expectBrowserGone(done);
    // What the machine had to tell is kept before it goes; never a picture of what the person saw.
    const kept = host.uploads.filter((name) => name.startsWith(browserOf(done)));
    expect(kept).toEqual(['timeline.json', 'agent.log'].map((name) => `${browserOf(done)}/${name}`));
    expect(host.destroyed).toEqual([done.browserMachineId]);
    expect(agent.loginStarts).toBe(1);

    const states = done.timeline.filter((event) => event.subject === 'session' && event.kind === 'state');
    expect(states.map((event) => event.name)).toEqual([
      'queued',
      'preparing',
      'waiting_for_person',
      'capturing',
      'storing',
      'installing',
      'completed',
    ]);
    const stamps = done.timeline.filter((event) => event.kind === 'checkpoint');
    expect(stamps.map((event) => event.name)).toEqual([
      'hypervisor',
      'init',
      'agent',
      'desktop',
      'browser',
      'provider',
    ]);
    expect(done.timeline.map((event) => event.seq)).toEqual(
      done.timeline.map((event) => event.seq).toSorted((a, b) => a - b),
    );

    const [credential] = await services.credentials.list({ userId: USER });
    expect(credential).toMatchObject({
      version: 1,
      facts: { accountId: 'acct-ada', email: 'ada@example.test', subscription: 'plus' },
      holderMachineId: done.cliMachineId,
    });
    const [cli] = (await services.machines.list({ userId: USER })).filter((one) => one.kind === 'cli');
    if (cli === undefined) throw new Error('no CLI machine');
    expect(cli).toMatchObject({ id: done.cliMachineId, state: 'ready', realm: 'test' });
    const [file] = host.agent(cli.id).disk.get('codex') ?? [];
    expect(Buffer.from(file?.contentBase64 ?? '', 'base64').toString()).toContain(canary);

    expect(await searchDatabase(bench.url, canary)).toEqual([]);
    expect(
      await searchDatabase(bench.url, Buffer.from(`refresh-${canary}`).toString('base64').slice(4, 40)),
    ).toEqual([]);
    expect(logged).not.toContain(canary);
    // The search itself works: something that is there is found.
    expect(await searchDatabase(bench.url, 'acct-ada')).toEqual(['polydev.credentials.facts']);
  });

  it('uses the same CLI machine again, starting it when it was stopped, and raises the version', async () => {
    const first = await start();
    host.agent(browserOf(await until(first.id, 'waiting_for_person'))).signIn();
    const { cliMachineId, credentialId } = await bench.settled(first.id);
    if (cliMachineId === null || credentialId === null) throw new Error('nothing was installed');
    expect((await services.machines.stop(cliMachineId)).state).toBe('stopped');

    const second = await start();
    host.agent(browserOf(await until(second.id, 'waiting_for_person'))).signIn();
    const done = await bench.settled(second.id);
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
    const first = await start();
    host.agent(browserOf(await until(first.id, 'waiting_for_person'))).signIn();
    const { cliMachineId } = await bench.settled(first.id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    const second = await start();
    const waiting = await until(second.id, 'waiting_for_person');
    const hold = host.hold('files');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    await createHostClient(host.socketPath).stop(cliMachineId);
    hold.release();
    const done = await bench.settled(second.id);
    expect(done).toMatchObject({ state: 'completed', cliMachineId, error: null });
  });

  it('keeps realms apart', async () => {
    const inTest = await start({ realm: 'test' });
    const outside = await start({ realm: 'internet' });
    for (const { id } of [inTest, outside]) {
      host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    }
    const [one, other] = [await bench.settled(inTest.id), await bench.settled(outside.id)];
    expect(one.state).toBe('completed');
    expect(other.state).toBe('completed');
    expect(one.cliMachineId).not.toBe(other.cliMachineId);
    expect(one.credentialId).not.toBe(other.credentialId);
  });

  it('refuses a second login of the same account while one is under way', async () => {
    const { id } = await start();
    await expect(start()).rejects.toMatchObject({ code: 'login_in_progress' });
    await services.logins.cancel(id);
    await bench.settled(id);
    const again = await start();
    await services.logins.cancel(again.id);
    await bench.settled(again.id);
  });

  const CANCEL_POINTS: readonly (readonly [SessionState, Point])[] = [
    ['preparing', 'put'],
    ['preparing', 'boot'],
    ['preparing', 'login'],
    ['capturing', 'files'],
    ['installing', 'install'],
    ['installing', 'exec'],
  ];
  for (const [state, point] of CANCEL_POINTS) {
    it(`can be cancelled while ${state} (at ${point})`, async () => {
      const early = state === 'preparing';
      const hold = early ? host.hold(point) : undefined;
      const { id } = await start();
      let late = hold;
      if (!early) {
        const waiting = await until(id, 'waiting_for_person');
        late = host.hold(point);
        host.agent(browserOf(waiting)).signIn();
      }
      await late?.reached;
      expect((await read(id)).state).toBe(state);
      const answer = await services.logins.cancel(id);
      expect(answer).toMatchObject({ state: 'cancelled', error: { code: 'login_cancelled' }, actions: [] });
      const done = await bench.settled(id);
      late?.release();
      expect(done.state).toBe('cancelled');
      // A start that the host was in the middle of is found and undone.
      const browser = browserOf(done);
      await waitFor(() => host.destroyed.includes(browser) && !host.ids.includes(browser));
      await expectBrowserGone(done);
      await expect(services.logins.cancel(id)).rejects.toMatchObject({ code: 'conflict' });
    });
  }

  it('has destroyed the browser machine before the CLI machine gets the credential', async () => {
    const { id } = await start();
    const waiting = await until(id, 'waiting_for_person');
    const gone = host.hold('delete');
    const install = host.hold('install');
    host.agent(browserOf(waiting)).signIn();
    await gone.reached;
    const { cliMachineId } = await read(id);
    if (cliMachineId !== null) {
      await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'ready');
      expect(host.agent(cliMachineId).disk.get('codex')).toBeUndefined();
    }
    expect(await services.credentials.list({})).toMatchObject([{ version: 1, holderMachineId: null }]);
    gone.release();
    await install.reached;
    expect(host.ids).not.toContain(browserOf(waiting));
    expect((await services.machines.get(browserOf(waiting)))?.state).toBe('destroyed');
    expect((await read(id)).state).toBe('installing');
    install.release();
    expect(await bench.settled(id)).toMatchObject({ state: 'completed', error: null });
  });

  it('lets the CLI machine start in peace when it is cancelled in its boot', async () => {
    const { id } = await start();
    const waiting = await until(id, 'waiting_for_person');
    const hold = host.hold('boot');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    await services.logins.cancel(id);
    const { cliMachineId } = await bench.settled(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    hold.release();
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'ready');
  });

  for (const url of [
    'http://auth.openai.com/oauth/authorize?redirect_uri=x&state=y&code_challenge=z',
    'javascript:alert(1)//https://auth.openai.com/oauth/authorize?redirect_uri=x&state=y&code_challenge=z',
    'https://evil.test/?https://auth.openai.com/oauth/authorize?redirect_uri=x&state=y&code_challenge=z',
    `https://auth.openai.com/oauth/authorize?redirect_uri=x&state=y&code_challenge=${'z'.repeat(8192)}`,
  ]) {
    it(`shows no login page that is not the provider’s: ${url.slice(0, 40)} (${url.length})`, async () => {
      host.behaviour.loginUrl = url;
      const { id } = await start();
      const done = await bench.settled(id);
      expect(done).toMatchObject({ state: 'failed', error: { code: 'login_no_url' }, loginUrl: null });
      expect(JSON.stringify(done)).not.toContain(bench.url);
      await expectBrowserGone(done);
    });
  }

  it('can be cancelled while waiting for the person', async () => {
    const { id } = await start();
    await until(id, 'waiting_for_person');
    await services.logins.cancel(id);
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'cancelled', error: { code: 'login_cancelled', fault: 'user' } });
    await expectBrowserGone(done);
  });

  it('expires when the person never comes', async () => {
    const { id } = await start({ expiresInSeconds: 5 });
    await until(id, 'waiting_for_person');
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'expired', error: { code: 'login_expired' } });
    await expectBrowserGone(done);
  });

  for (const code of ['login_denied', 'login_rejected', 'login_cli_failed'] as const) {
    it(`fails by name when the agent reports ${code}`, async () => {
      const { id } = await start();
      host.agent(browserOf(await until(id, 'waiting_for_person'))).failLogin(code);
      const done = await bench.settled(id);
      expect(done).toMatchObject({ state: 'failed', error: { code } });
      await expectBrowserGone(done);
      expect(await services.machines.evidence(browserOf(done))).toHaveLength(1);
    });
  }

  it('fails when the CLI wrote an incomplete credential, and stores nothing', async () => {
    host.behaviour.files = codexFiles(canary, { incomplete: true });
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'credential_incomplete' } });
    expect(await services.credentials.list({})).toEqual([]);
    expect(await searchDatabase(bench.url, canary)).toEqual([]);
    await expectBrowserGone(done);
  });

  it('fails when the CLI does not accept the credential, and repeats no token that it says', async () => {
    host.behaviour.verify = { output: `Not logged in: refresh-${canary}\n`, code: 1 };
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'credential_verify_failed' } });
    expect(await searchDatabase(bench.url, canary)).toEqual([]);
    expect(logged).not.toContain(canary);
  });

  it('fails at once when the host refuses the machine', async () => {
    host.behaviour.putFailure = new PolydevError('image_missing', 'no image').toReport();
    const { id } = await start();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'image_missing' } });
    await expectBrowserGone(done);
  });

  it('fails at once when the agent says that the boot cannot go on', async () => {
    host.behaviour.bootFailure = new PolydevError('desktop_failed', 'Xvnc ended').toReport();
    const { id } = await start();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'desktop_failed', message: 'Xvnc ended' } });
    expect(await services.machines.get(browserOf(done))).toMatchObject({
      state: 'destroyed',
      error: { code: 'desktop_failed' },
    });
  });

  it('names the last checkpoint of a boot that stalls', async () => {
    host.behaviour.stallAfter = 'desktop';
    const { id } = await start();
    const done = await bench.settled(id);
    expect(done.error).toMatchObject({ code: 'machine_boot_stalled' });
    expect(done.error?.lines).toEqual([
      'deadline of browser: 6 s from the start (6 s, the usual time: 0 boots were measured, and 5 are needed)',
    ]);
    expect(done.error?.message).toContain('desktop');
    await expectBrowserGone(done);
  });

  it('notices that the machine died in its boot', async () => {
    const hold = host.hold('boot');
    const { id } = await start();
    await hold.reached;
    host.kill(browserOf(await read(id)));
    hold.release();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    expect(done.error?.message).toContain('out of memory');
    await expectBrowserGone(done);
  });

  it('notices that the machine died while the person signs in', async () => {
    const { id } = await start();
    host.kill(browserOf(await until(id, 'waiting_for_person')));
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    await expectBrowserGone(done);
  });

  it('forgets the workflows of what is over, and none of what goes on', async () => {
    const done = await start();
    host.agent(browserOf(await until(done.id, 'waiting_for_person'))).signIn();
    await bench.settled(done.id);
    const running = await start();
    const waiting = await until(running.id, 'waiting_for_person');
    const soon = new Date(Date.now() + 60_000);
    const { signal } = new AbortController();
    expect(await pruneWorkflows(new Date(0), signal)).toBe(0);
    expect(await pruneWorkflows(soon, signal, 1)).toBe(1);
    expect(await pruneWorkflows(soon, signal)).toBe(0);
    host.agent(browserOf(waiting)).signIn();
    expect((await bench.settled(running.id)).state).toBe('completed');
  });

  it('notices that the CLI machine died while the credential is installed', async () => {
    const { id } = await start();
    const waiting = await until(id, 'waiting_for_person');
    const hold = host.hold('install');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    const { cliMachineId } = await read(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    host.kill(cliMachineId);
    hold.release();
    const done = await bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    await expectBrowserGone(done);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    // The credential is kept, and so is the disk that it was on its way to.
    expect(await services.credentials.list({})).toMatchObject([{ holderMachineId: cliMachineId }]);
  });

  it('destroys what the host runs for nobody and names what the host lost', async () => {
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const { cliMachineId } = await bench.settled(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    const limits = { cpus: 1, memoryMiB: 64, pids: 32 };
    const stray = { kind: 'browser', realm: 'test', limits, display: { width: 800, height: 600 } } as const;
    const strayId = browserOf(await read(id));
    const client = createHostClient(host.socketPath);
    await client.put({ id: strayId, agentTokenHash: '0'.repeat(64), ...stray });
    await waitFor(() => !host.ids.includes(strayId));

    host.forget(cliMachineId);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    expect((await services.machines.get(cliMachineId))?.error?.code).toBe('machine_exited');
  });

  it('lets no CLI machine run on that did not start, and keeps its disk', async () => {
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const { cliMachineId } = await bench.settled(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
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
    expect(Buffer.from(file?.contentBase64 ?? '', 'base64').toString()).toContain(canary);
  });

  it('keeps a CLI machine that ended by itself, to be started again', async () => {
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const { cliMachineId } = await bench.settled(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    host.kill(cliMachineId);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    expect((await services.machines.get(cliMachineId))?.error).toMatchObject({ code: 'machine_exited' });
    expect(await services.credentials.list({})).toMatchObject([{ holderMachineId: cliMachineId }]);
    expect(await services.machines.start(cliMachineId)).toMatchObject({ state: 'ready', error: null });
  });

  it('offers terminals and commands in the CLI machine', async () => {
    const { id } = await start();
    host.agent(browserOf(await until(id, 'waiting_for_person'))).signIn();
    const { cliMachineId } = await bench.settled(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
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

/** Polls what no event announces; fails after ten seconds. */
