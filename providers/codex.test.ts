import { describe, expect, it } from 'vitest';
import type { CredentialFile } from '../protocol/agent.ts';
import { codex } from './codex.ts';

const jwt = (claims: unknown) =>
  ['{"alg":"RS256"}', JSON.stringify(claims), 'signature']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');

const file = (content: string | Buffer): CredentialFile[] => [
  { path: '.codex/auth.json', mode: 0o600, contentBase64: Buffer.from(content).toString('base64') },
];
const idToken = jwt({
  email: 'ada@example.com',
  'https://api.openai.com/auth': { chatgpt_account_id: 'acc-1', chatgpt_plan_type: 'plus' },
});
const tokens = {
  id_token: idToken,
  access_token: jwt({ exp: 1_800_000_000 }),
  refresh_token: 'rt-secret',
  account_id: 'acc-1',
};
const auth = (change: Record<string, unknown>) =>
  JSON.stringify({ auth_mode: 'chatgpt', OPENAI_API_KEY: null, tokens: { ...tokens, ...change } });

describe('codex credential check', () => {
  it('tells what may be known of a whole credential', () => {
    expect(codex.credential.check(file(auth({})))).toEqual({
      state: 'complete',
      facts: {
        accountId: 'acc-1',
        email: 'ada@example.com',
        subscription: 'plus',
        accessExpiresAt: '2027-01-15T08:00:00.000Z',
      },
    });
  });

  it('takes the account from the claims when the file does not name it', () => {
    const check = codex.credential.check(file(auth({ account_id: undefined })));
    expect(check).toMatchObject({ state: 'complete', facts: { accountId: 'acc-1' } });
  });

  it('does not ask for claims it can do without', () => {
    const bare = { id_token: 'opaque', access_token: 'opaque' };
    expect(codex.credential.check(file(auth(bare)))).toEqual({
      state: 'complete',
      facts: { accountId: 'acc-1', email: null, subscription: null, accessExpiresAt: null },
    });
  });

  it.each([
    ['no files', []],
    ['another file', [{ path: '.codex/config.toml', mode: 0o600, contentBase64: '' }]],
    ['an empty file', file('')],
    ['half a file', file(auth({}).slice(0, 40))],
    ['an empty object', file('{}')],
    ['null', file('null')],
    ['an array', file('[1]')],
    ['a string', file('"tokens"')],
    ['bytes that are no text', file(Buffer.from([0xff, 0xfe, 0x00, 0x80]))],
    ['no tokens', file('{"OPENAI_API_KEY":"sk-x","tokens":null}')],
    ['tokens that are a list', file('{"tokens":[]}')],
    ['a blank refresh token', file(auth({ refresh_token: '' }))],
    ['a refresh token of spaces', file(auth({ refresh_token: '  ' }))],
    ['a refresh token that is a number', file(auth({ refresh_token: 7 }))],
    ['no id token', file(auth({ id_token: undefined }))],
    ['a null access token', file(auth({ access_token: null }))],
    ['no account anywhere', file(auth({ id_token: 'a.b.c', account_id: '' }))],
    ['claims that are no object', file(auth({ id_token: jwt(5), account_id: null }))],
  ])('calls %s incomplete and says why without a token', (_name, files) => {
    const check = codex.credential.check(files);
    expect(check.state).toBe('incomplete');
    expect(JSON.stringify(check)).not.toContain('secret');
  });

  it.each([Number.NaN, 1e300, -1e300, '1800000000', null])('survives exp = %s', (exp) => {
    const check = codex.credential.check(file(auth({ access_token: jwt({ exp }) })));
    expect(check).toMatchObject({ state: 'complete', facts: { accessExpiresAt: null } });
  });
});

describe('codex login', () => {
  const page =
    'https://auth.openai.com/oauth/authorize?response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%3A1455%2Fauth%2Fcallback&code_challenge=abc&state=xyz';

  it.each([
    ['alone', page],
    ['in a sentence', `If your browser did not open:\n\n${page}\n\nOn a remote machine?`],
    ['after a cut one', `https://auth.openai.com/oauth/authorize?resp\n${page}\n`],
  ])('finds its page %s', (_name, text) => {
    expect(codex.login.findUrl(text)?.href).toBe(page);
  });

  it.each([
    ['another host', page.replace('auth.openai.com', 'auth.openai.com.example.org')],
    ['plain HTTP', page.replace('https', 'http')],
    ['a cut address', page.slice(0, 70)],
    ['the callback', 'http://localhost:1455.'],
    ['nothing', ''],
  ])('does not take %s for its page', (_name, text) => {
    expect(codex.login.findUrl(text)).toBeUndefined();
  });

  it.each([
    [
      'WARN codex_login::server: oauth callback returned error error_code="access_denied" has',
      'login_denied',
    ],
    ['Error logging in: Sign-in failed: User denied', 'login_denied'],
    ['oauth callback returned error error_code="invalid_scope"', 'login_rejected'],
    ['WARN codex_login::server: login callback state mismatch path=/auth/callback', 'login_rejected'],
    ['Error logging in: Token exchange failed: error sending request', 'login_cli_failed'],
    ['', 'login_cli_failed'],
  ])('explains %j as %s', (text, code) => {
    expect(codex.login.explainFailure(text)).toBe(code);
  });

  it('knows the answer of login status', () => {
    expect(codex.verify.loggedIn('Logged in using ChatGPT\n')).toBe(true);
    expect(codex.verify.loggedIn('Not logged in\n')).toBe(false);
    expect(codex.verify.loggedIn('Logged in using an API key - sk-x\n')).toBe(false);
  });
});
