import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LoginStatus } from '../../protocol/agent.ts';
import { newSessionId } from '../../protocol/ids.ts';
import { codex } from '../../providers/codex.ts';
import type { Provider } from '../../providers/provider.ts';
import { asPerson } from '../person.ts';
import { Fixture } from '../testing/fixture.ts';
import { isFinal, type Login } from './login.ts';
import { Logins } from './logins.ts';

/** The faults of a CLI, acted out by scripts: the genuine one cannot be made to fail in these ways. */
const PAGE =
  'https://auth.openai.com/oauth/authorize?client_id=x&redirect_uri=http%3A%2F%2F127.0.0.1%3APORT%2Fauth%2Fcallback&code_challenge=abc&state=xyz';
const OPEN = `"$BROWSER" '${PAGE}'`;
const jwt = `eyJhbGciOiJub25lIn0.${Buffer.from('{"exp":1800000000}').toString('base64url')}.sig`;
const WHOLE = JSON.stringify({
  tokens: { id_token: jwt, access_token: jwt, refresh_token: 'canary-refresh', account_id: 'acc-1' },
});
const write = (json: string) =>
  `mkdir -p "$HOME/.codex"; printf '%s' '${json}' > "$HOME/.codex/new"; mv "$HOME/.codex/new" "$HOME/.codex/auth.json"`;

let fixture: Fixture;
let opened: URL[];
beforeEach(() => {
  fixture = new Fixture();
  opened = [];
});
afterEach(() => fixture[Symbol.asyncDispose]());

function setUp(body: string, seconds = 20): { logins: Logins; provider: Provider } {
  const argv = [fixture.script('cli', body)];
  const provider = {
    ...codex,
    login: { ...codex.login, command: { argv, env: {} }, urlDeadlineSeconds: seconds },
  };
  const { processes, log } = fixture;
  const open = async (url: URL) => void opened.push(url);
  return { provider, logins: new Logins(path.join(fixture.directory, 'login'), { processes, log, open }) };
}

function begin(body: string, seconds?: number): Login {
  const { logins, provider } = setUp(body, seconds);
  return logins.start({ session: newSessionId(), provider: 'codex' }, provider);
}

async function until(login: Login, wanted: (status: LoginStatus) => boolean): Promise<LoginStatus> {
  for await (const status of login.events(AbortSignal.timeout(30_000))) if (wanted(status)) return status;
  throw new Error(`the login ended as ${login.status.state} ${login.status.error?.code}`);
}
const over = (login: Login) => until(login, (status) => isFinal(status.state));

describe('login', () => {
  it('opens the page that the CLI gives its browser, and succeeds with a whole credential', async () => {
    const login = begin(`${OPEN}; sleep 0.3; ${write(WHOLE)}`);
    const waiting = await until(login, (status) => status.state === 'waiting_for_person');
    expect(waiting.url).toBe(PAGE);
    expect(await over(login)).toMatchObject({ state: 'succeeded', error: null });
    expect(opened.map((url) => url.href)).toEqual([PAGE]);
    expect(fixture.log.text()).not.toContain('canary-refresh');
    expect(fixture.log.text()).not.toContain('state=xyz');
  });

  it('ends a CLI that has written its credential and does not end', async () => {
    const login = begin(`${OPEN}; ${write(WHOLE)}; sleep 60`);
    expect(await over(login)).toMatchObject({ state: 'succeeded' });
  });

  it.each([
    ['writes {}', `${OPEN}; ${write('{}')}`],
    ['writes blank tokens', `${OPEN}; ${write(WHOLE.replaceAll('canary-refresh', ''))}`],
    ['writes nothing', OPEN],
  ])('does not believe a CLI that exits with 0 and %s', async (_name, body) => {
    expect(await over(begin(body))).toMatchObject({
      state: 'failed',
      error: { code: 'credential_incomplete' },
    });
  });

  it('names a CLI that gives no page in time, with its redacted lines', async () => {
    const login = begin(`echo 'token ${jwt}'; sleep 60`, 1);
    const status = await over(login);
    expect(status).toMatchObject({ state: 'failed', error: { code: 'login_no_url' } });
    expect(status.error?.lines).toEqual(['token [token]']);
  });

  it('does not take the printed page for the one of the browser', async () => {
    expect(await over(begin(`echo '${PAGE}'; sleep 60`, 1))).toMatchObject({
      error: { code: 'login_no_url' },
    });
  });

  it.each([
    ['exits before it has a page', 'exit 3', 'login_no_url'],
    ['fails afterwards', `${OPEN}; sleep 0.2; exit 1`, 'login_cli_failed'],
    ['is killed', `${OPEN}; sleep 0.2; kill -9 $$`, 'login_cli_failed'],
    ['was denied', `${OPEN}; sleep 0.2; echo 'Sign-in failed: User denied' >&2; exit 1`, 'login_denied'],
  ])('names a CLI that %s', async (_name, body, code) => {
    const status = await over(begin(body));
    expect(status.error?.code).toBe(code);
  });

  it('finds in the trace that the answer was refused while the CLI keeps waiting', async () => {
    const trace = '$HOME/.codex/log/codex-login.log';
    const login = begin(
      `mkdir -p "$HOME/.codex/log"; ${OPEN}; sleep 0.3; echo 'WARN login callback state mismatch' >> "${trace}"; sleep 60`,
    );
    expect(await over(login)).toMatchObject({ state: 'failed', error: { code: 'login_rejected' } });
  });

  it('does not read the trace of an earlier login', async () => {
    const { person } = fixture.processes;
    asPerson(person, () => {
      mkdirSync(path.join(person.home, '.codex/log'), { recursive: true });
      writeFileSync(path.join(person.home, '.codex/log/codex-login.log'), 'login callback state mismatch\n');
    });
    expect(await over(begin(`${OPEN}; sleep 0.7; ${write(WHOLE)}`))).toMatchObject({ state: 'succeeded' });
  });

  it('does not take an older credential for the new one', async () => {
    const { person } = fixture.processes;
    asPerson(person, () => {
      mkdirSync(path.join(person.home, '.codex'));
      writeFileSync(path.join(person.home, '.codex/auth.json'), WHOLE);
    });
    expect(await over(begin(`${OPEN}; sleep 0.5; exit 1`))).toMatchObject({
      state: 'failed',
      error: { code: 'login_cli_failed' },
    });
  });

  it('says that a CLI is not there', async () => {
    const { logins, provider } = setUp('exit 0');
    const missing = {
      ...provider,
      login: { ...provider.login, command: { argv: ['/no/such/cli'], env: {} } },
    };
    const login = logins.start({ session: newSessionId(), provider: 'codex' }, missing);
    expect(await over(login)).toMatchObject({ state: 'failed', error: { code: 'login_cli_failed' } });
  });

  it('is cancelled with all its processes', async () => {
    const mark = path.join(fixture.processes.person.home, 'alive');
    const login = begin(`${OPEN}; (sleep 1.5; touch '${mark}') & wait`);
    await until(login, (status) => status.state === 'waiting_for_person');
    await login.cancel();
    expect(login.status).toMatchObject({ state: 'cancelled', error: null });
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(existsSync(mark)).toBe(false);
  });

  it('runs one at a time and gives the same session the same login', async () => {
    const { logins, provider } = setUp(`${OPEN}; sleep 60`);
    const start = { session: newSessionId(), provider: 'codex' } as const;
    const login = logins.start(start, provider);
    expect(logins.start(start, provider)).toBe(login);
    const other = { session: newSessionId(), provider: 'codex' } as const;
    expect(() => logins.start(other, provider)).toThrow(/is logging in here/);
    await login.cancel();
    const next = logins.start(other, provider);
    expect(next).not.toBe(login);
    await next.cancel();
  });

  it('delivers a pasted callback to the CLI, follows its page and takes no other address', async () => {
    const seen: string[] = [];
    await using server = createServer((request, response) => {
      seen.push(request.url ?? '');
      if (request.url?.startsWith('/auth/callback')) {
        response.writeHead(302, { location: '/success?id_token=x' }).end();
      } else response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const login = begin(`"$BROWSER" '${PAGE.replace('PORT', String(port))}'; sleep 60`);
    await until(login, (status) => status.state === 'waiting_for_person');
    await login.input(` http://localhost:${port}/auth/callback?code=c&state=xyz\n`);
    expect(seen).toEqual(['/auth/callback?code=c&state=xyz', '/success?id_token=x']);
    for (const text of [`http://localhost:${port}/other`, 'http://example.com/auth/callback', 'some code']) {
      await expect(login.input(text)).rejects.toMatchObject({ code: 'bad_request' });
    }
    await login.cancel();
    await expect(login.input('late')).rejects.toMatchObject({ code: 'conflict' });
  });
});
