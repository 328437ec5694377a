import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { newSessionId } from '../../protocol/ids.ts';
import { codex } from '../../providers/codex.ts';
import { findProgram } from '../boot/cli.ts';
import { Fixture } from '../testing/fixture.ts';
import { isFinal } from './login.ts';
import { Logins } from './logins.ts';

/** The genuine CLI, in a network of its own that holds nothing but loopback. */
const binary = process.env.POLYDEV_CODEX ?? findProgram('codex', '/usr/local/bin:/usr/bin');
const lacking = [
  ...(binary === undefined ? ['codex (POLYDEV_CODEX)'] : []),
  ...(spawnSync('unshare', ['-rn', 'ip', 'link', 'set', 'lo', 'up']).status === 0 ? [] : ['unshare -rn']),
  ...(findProgram('curl', '/usr/bin:/bin') === undefined ? ['curl'] : []),
];

describe.skipIf(lacking.length > 0)(`codex login (lacking: ${lacking.join(', ')})`, () => {
  function start(fixture: Fixture, afterwards: string) {
    const body = `ip link set lo up; ${binary} login & cli=$!; ${afterwards} wait $cli`;
    const argv = ['unshare', '-rn', 'sh', '-c', body];
    const provider = { ...codex, login: { ...codex.login, command: { argv, env: {} } } };
    const { processes, log, directory } = fixture;
    const logins = new Logins(path.join(directory, 'login'), { processes, log, open: undefined });
    return logins.start({ session: newSessionId(), provider: 'codex' }, provider);
  }

  it('gives its page to the browser and is gone after a cancel', async () => {
    await using fixture = new Fixture();
    const login = start(fixture, '');
    let url: string | null = null;
    for await (const status of login.events(AbortSignal.timeout(30_000))) {
      url = status.url;
      if (status.state !== 'starting') break;
    }
    const page = new URL(url ?? 'none:');
    expect(page.origin + page.pathname).toBe('https://auth.openai.com/oauth/authorize');
    expect(page.searchParams.get('redirect_uri')).toBe('http://127.0.0.1:1455/auth/callback');
    expect(page.searchParams.get('code_challenge_method')).toBe('S256');
    await login.cancel();
    expect(login.status.state).toBe('cancelled');
    expect(fixture.log.text()).not.toContain(page.searchParams.get('state'));
  });

  it('is found to have refused an answer with a wrong state', async () => {
    await using fixture = new Fixture();
    const callback = 'http://127.0.0.1:1455/auth/callback?code=abc&state=wrong';
    const login = start(
      fixture,
      `i=0; until curl -so /dev/null '${callback}' || [ $i = 100 ]; do i=$((i+1)); sleep 0.1; done;`,
    );
    for await (const status of login.events(AbortSignal.timeout(30_000))) if (isFinal(status.state)) break;
    expect(login.status).toMatchObject({ state: 'failed', error: { code: 'login_rejected' } });
    expect(login.status.error?.lines?.join('\n')).toContain('login callback state mismatch');
  });
});
