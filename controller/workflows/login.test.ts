/** Login sessions that go well, and what stays apart on the way. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FakeHost } from '../../testkit/fakes/host.ts';
import { searchDatabase, startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import type { Services } from '../services.ts';
import { pruneWorkflows } from './engine.ts';
import { waitFor } from './testing/bench.ts';
import { browserOf, LoginBench, USER } from './testing/login-bench.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a login session', () => {
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

  it('runs from click to a CLI that is logged in', async () => {
    const { id } = await logins.start();
    const waiting = await logins.until(id, 'waiting_for_person');
    expect(waiting.loginUrl).toContain('https://auth.openai.com/oauth/authorize');
    expect(waiting.actions).toEqual(['cancel', 'view', 'input']);
    await services.logins.input(id, 'code');
    const agent = host.agent(browserOf(waiting));
    expect(agent.inputs).toEqual(['{"text":"code"}']);
    const desktop = await services.machines.desktop(id);
    desktop.destroy();
    agent.signIn();

    const done = await logins.bench.settled(id);
    expect(done.error).toBeNull();
    expect(done.state).toBe('completed');
    expect(done.verification).toBe('Logged in using ChatGPT');
    await logins.expectBrowserGone(done);
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
      'kernel',
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
    expect(Buffer.from(file?.contentBase64 ?? '', 'base64').toString()).toContain(logins.canary);

    expect(await searchDatabase(logins.bench.url, logins.canary)).toEqual([]);
    expect(
      await searchDatabase(
        logins.bench.url,
        Buffer.from(`refresh-${logins.canary}`).toString('base64').slice(4, 40),
      ),
    ).toEqual([]);
    expect(logins.logged).not.toContain(logins.canary);
    // The search itself works: something that is there is found.
    expect(await searchDatabase(logins.bench.url, 'acct-ada')).toEqual(['polydev.credentials.facts']);
  });

  it('keeps realms apart', async () => {
    const inTest = await logins.start({ realm: 'test' });
    const outside = await logins.start({ realm: 'internet' });
    for (const { id } of [inTest, outside]) {
      host.agent(browserOf(await logins.until(id, 'waiting_for_person'))).signIn();
    }
    const [one, other] = [await logins.bench.settled(inTest.id), await logins.bench.settled(outside.id)];
    expect(one.state).toBe('completed');
    expect(other.state).toBe('completed');
    expect(one.cliMachineId).not.toBe(other.cliMachineId);
    expect(one.credentialId).not.toBe(other.credentialId);
  });

  it('refuses a second login of the same account while one is under way', async () => {
    const { id } = await logins.start();
    await expect(logins.start()).rejects.toMatchObject({ code: 'login_in_progress' });
    await services.logins.cancel(id);
    await logins.bench.settled(id);
    const again = await logins.start();
    await services.logins.cancel(again.id);
    await logins.bench.settled(again.id);
  });

  it('has destroyed the browser machine before the CLI machine gets the credential', async () => {
    const { id } = await logins.start();
    const waiting = await logins.until(id, 'waiting_for_person');
    const gone = host.hold('delete');
    const install = host.hold('install');
    host.agent(browserOf(waiting)).signIn();
    await gone.reached;
    const { cliMachineId } = await logins.read(id);
    if (cliMachineId !== null) {
      await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'ready');
      expect(host.agent(cliMachineId).disk.get('codex')).toBeUndefined();
    }
    expect(await services.credentials.list({})).toMatchObject([{ version: 1, holderMachineId: null }]);
    gone.release();
    await install.reached;
    expect(host.ids).not.toContain(browserOf(waiting));
    expect((await services.machines.get(browserOf(waiting)))?.state).toBe('destroyed');
    expect((await logins.read(id)).state).toBe('installing');
    install.release();
    expect(await logins.bench.settled(id)).toMatchObject({ state: 'completed', error: null });
  });

  it('forgets the workflows of what is over, and none of what goes on', async () => {
    const done = await logins.start();
    await logins.signIn(done.id);
    const running = await logins.start();
    const waiting = await logins.until(running.id, 'waiting_for_person');
    const soon = new Date(Date.now() + 60_000);
    const { signal } = new AbortController();
    expect(await pruneWorkflows(new Date(0), signal)).toBe(0);
    expect(await pruneWorkflows(soon, signal, 1)).toBe(1);
    expect(await pruneWorkflows(soon, signal)).toBe(0);
    host.agent(browserOf(waiting)).signIn();
    expect((await logins.bench.settled(running.id)).state).toBe('completed');
  });
});
