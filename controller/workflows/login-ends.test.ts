/** Every other end of a login session: cancelled, too late, denied, failed by name. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import type { SessionState } from '../../protocol/lifecycles.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import type { FakeHost, Point } from '../../testkit/fakes/host.ts';
import { searchDatabase, startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import type { Services } from '../services.ts';
import { waitFor } from './testing/bench.ts';
import { browserOf, LoginBench } from './testing/login-bench.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a login session that ends otherwise', () => {
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
      const { id } = await logins.start();
      let late = hold;
      if (!early) {
        const waiting = await logins.until(id, 'waiting_for_person');
        late = host.hold(point);
        host.agent(browserOf(waiting)).signIn();
      }
      await late?.reached;
      expect((await logins.read(id)).state).toBe(state);
      const answer = await services.logins.cancel(id);
      expect(answer).toMatchObject({ state: 'cancelled', error: { code: 'login_cancelled' }, actions: [] });
      const done = await logins.bench.settled(id);
      late?.release();
      expect(done.state).toBe('cancelled');
      // A start that the host was in the middle of is found and undone.
      const browser = browserOf(done);
      await waitFor(() => host.destroyed.includes(browser) && !host.ids.includes(browser));
      await logins.expectBrowserGone(done);
      await expect(services.logins.cancel(id)).rejects.toMatchObject({ code: 'conflict' });
    });
  }

  it('lets the CLI machine start in peace when it is cancelled in its boot', async () => {
    const { id } = await logins.start();
    const waiting = await logins.until(id, 'waiting_for_person');
    const hold = host.hold('boot');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    await services.logins.cancel(id);
    const { cliMachineId } = await logins.bench.settled(id);
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
      const { id } = await logins.start();
      const done = await logins.bench.settled(id);
      expect(done).toMatchObject({ state: 'failed', error: { code: 'login_no_url' }, loginUrl: null });
      expect(JSON.stringify(done)).not.toContain(logins.bench.url);
      await logins.expectBrowserGone(done);
    });
  }

  it('can be cancelled while waiting for the person', async () => {
    const { id } = await logins.start();
    await logins.until(id, 'waiting_for_person');
    await services.logins.cancel(id);
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'cancelled', error: { code: 'login_cancelled', fault: 'user' } });
    await logins.expectBrowserGone(done);
  });

  it('expires when the person never comes', async () => {
    const { id } = await logins.start({ expiresInSeconds: 5 });
    await logins.until(id, 'waiting_for_person');
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'expired', error: { code: 'login_expired' } });
    await logins.expectBrowserGone(done);
  });

  for (const code of ['login_denied', 'login_rejected', 'login_cli_failed'] as const) {
    it(`fails by name when the agent reports ${code}`, async () => {
      const { id } = await logins.start();
      host.agent(browserOf(await logins.until(id, 'waiting_for_person'))).failLogin(code);
      const done = await logins.bench.settled(id);
      expect(done).toMatchObject({ state: 'failed', error: { code } });
      await logins.expectBrowserGone(done);
      expect(await services.machines.evidence(browserOf(done))).toHaveLength(1);
    });
  }

  it('fails when the CLI wrote an incomplete credential, and stores nothing', async () => {
    host.behaviour.files = codexFiles(logins.canary, { incomplete: true });
    const { id } = await logins.start();
    const done = await logins.signIn(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'credential_incomplete' } });
    expect(await services.credentials.list({})).toEqual([]);
    expect(await searchDatabase(logins.bench.url, logins.canary)).toEqual([]);
    await logins.expectBrowserGone(done);
  });

  it('fails when the CLI does not accept the credential, and repeats no token that it says', async () => {
    host.behaviour.verify = { output: `Not logged in: refresh-${logins.canary}\n`, code: 1 };
    const { id } = await logins.start();
    const done = await logins.signIn(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'credential_verify_failed' } });
    expect(await searchDatabase(logins.bench.url, logins.canary)).toEqual([]);
    expect(logins.logged).not.toContain(logins.canary);
  });

  it('fails at once when the host refuses the machine', async () => {
    host.behaviour.putFailure = new PolydevError('image_missing', 'no image').toReport();
    const { id } = await logins.start();
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'image_missing' } });
    await logins.expectBrowserGone(done);
  });

  it('fails at once when the agent says that the boot cannot go on', async () => {
    host.behaviour.bootFailure = new PolydevError('desktop_failed', 'Xvnc ended').toReport();
    const { id } = await logins.start();
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'desktop_failed', message: 'Xvnc ended' } });
    expect(await services.machines.get(browserOf(done))).toMatchObject({
      state: 'destroyed',
      error: { code: 'desktop_failed' },
    });
  });

  it('names the last checkpoint of a boot that stalls', async () => {
    host.behaviour.stallAfter = 'desktop';
    const { id } = await logins.start();
    const done = await logins.bench.settled(id);
    expect(done.error).toMatchObject({ code: 'machine_boot_stalled' });
    expect(done.error?.lines).toEqual([
      'deadline of browser: 6 s from the start (6 s, the usual time: 0 boots were measured, and 5 are needed)',
    ]);
    expect(done.error?.message).toContain('desktop');
    await logins.expectBrowserGone(done);
  });

  it('notices that the machine died in its boot', async () => {
    const hold = host.hold('boot');
    const { id } = await logins.start();
    await hold.reached;
    host.kill(browserOf(await logins.read(id)));
    hold.release();
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    expect(done.error?.message).toContain('out of memory');
    await logins.expectBrowserGone(done);
  });

  it('notices that the machine died while the person signs in', async () => {
    const { id } = await logins.start();
    host.kill(browserOf(await logins.until(id, 'waiting_for_person')));
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    await logins.expectBrowserGone(done);
  });

  it('notices that the CLI machine died while the credential is installed', async () => {
    const { id } = await logins.start();
    const waiting = await logins.until(id, 'waiting_for_person');
    const hold = host.hold('install');
    host.agent(browserOf(waiting)).signIn();
    await hold.reached;
    const { cliMachineId } = await logins.read(id);
    if (cliMachineId === null) throw new Error('no CLI machine');
    host.kill(cliMachineId);
    hold.release();
    const done = await logins.bench.settled(id);
    expect(done).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    await logins.expectBrowserGone(done);
    await waitFor(async () => (await services.machines.get(cliMachineId))?.state === 'stopped');
    // The credential is kept, and so is the disk that it was on its way to.
    expect(await services.credentials.list({})).toMatchObject([{ holderMachineId: cliMachineId }]);
  });
});
