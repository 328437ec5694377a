import { statSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ANSWER_PREFIX } from './codex-chatgpt.ts';
import { CANARY, CLIENT, Fixture, Tokens, visitIn } from './fixture.ts';
import { emailFor, TEST_PERSON } from './people.ts';

let idp: Fixture;
beforeAll(async () => {
  idp = await Fixture.start();
});
afterAll(() => idp[Symbol.asyncDispose]());

const claimsOf = (jwt: string) =>
  JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString('utf8'));

describe('the way to a code', () => {
  it('leads over sign-in and consent back to the callback, with the state that was sent', async () => {
    const { status, visit, state, text } = await idp.authorize();
    expect(status).toBe(200);
    expect(text).toContain('Test identity provider');
    const signedIn = await idp.signIn(visit);
    expect(signedIn).toMatchObject({ status: 303, location: `/oauth/consent?visit=${visit}` });
    const consent = await idp.call({ path: signedIn.location ?? '' });
    expect(consent.text).toContain(TEST_PERSON.email);
    const { status: moved, location = '' } = await idp.decide(visit, 'allow');
    expect(moved).toBe(303);
    const url = new URL(location);
    expect(url.origin + url.pathname).toBe(CLIENT.redirect);
    expect(url.searchParams.get('state')).toBe(state);
    expect(url.searchParams.get('code')).toMatch(/^[A-Za-z0-9_-]{32}$/);
  });

  it.each([
    ['response_type', 'token'],
    ['client_id', 'somebody-else'],
    ['redirect_uri', 'https://attacker.example/auth/callback'],
    ['redirect_uri', 'http://127.0.0.1.attacker.example:1455/auth/callback'],
    ['redirect_uri', 'http://127.0.0.1:1455/elsewhere'],
    ['redirect_uri', 'no url'],
    ['code_challenge_method', 'plain'],
    ['code_challenge', 'short'],
    ['state', ''],
    ['scope', 'profile'],
  ])('refuses, without a redirect, a request with %s = "%s"', async (name, value) => {
    const answer = await idp.authorize({ [name]: value });
    expect(answer.status).toBe(400);
    expect(answer.location).toBeUndefined();
    expect(answer.visit).toBe('');
    expect(answer.text).toContain(name);
  });

  it('shows an error for a wrong password, and lets the person try again', async () => {
    const { visit } = await idp.authorize();
    const wrong = await idp.signIn(visit, TEST_PERSON.email, 'wrong');
    expect(wrong.status).toBe(403);
    expect(wrong.text).toContain('role="alert"');
    expect(wrong.text).toContain(`value="${TEST_PERSON.email}"`);
    expect(wrong.text).toMatch(/id="password"[^>]* autofocus/);
    expect((await idp.decide(visit, 'allow')).status).toBe(400);
    expect((await idp.signIn(visitIn(wrong.text))).status).toBe(303);
  });

  it('escapes what was typed', async () => {
    const { visit } = await idp.authorize();
    const { text } = await idp.signIn(visit, '"><script>alert(1)</script>@x', 'wrong');
    expect(text).not.toContain('<script>');
  });

  it('takes a denial back to the CLI as access_denied', async () => {
    const { visit, state } = await idp.authorize();
    await idp.signIn(visit);
    const { location = '' } = await idp.decide(visit, 'deny');
    const { searchParams } = new URL(location);
    expect(Object.fromEntries(searchParams)).toEqual({
      error: 'access_denied',
      error_description: 'User denied',
      state,
    });
  });

  it('takes one decision per visit', async () => {
    const { visit } = await idp.authorize();
    await idp.signIn(visit);
    expect((await idp.decide(visit, 'allow')).status).toBe(303);
    expect((await idp.decide(visit, 'allow')).status).toBe(400);
  });

  it('sends another state when the person types wrong-state@', async () => {
    const { visit, state } = await idp.authorize();
    await idp.signIn(visit, emailFor('wrong-state'));
    const { location = '' } = await idp.decide(visit, 'allow');
    const { searchParams } = new URL(location);
    expect(searchParams.get('code')).toBeTruthy();
    expect(searchParams.get('state')).toBeTruthy();
    expect(searchParams.get('state')).not.toBe(state);
  });
});

describe('the code exchange', () => {
  it('gives three tokens that hold the canary and say whose they are', async () => {
    const tokens = await idp.tokens('grace@polydev.test');
    for (const token of Object.values(tokens)) expect(token).toContain(CANARY);
    expect(claimsOf(tokens.id_token)).toMatchObject({ email: 'grace@polydev.test' });
    const claims = claimsOf(tokens.access_token);
    expect(claims['https://api.openai.com/auth'].chatgpt_account_id).toMatch(/^test-account-/);
    expect(claims.exp - claims.iat).toBe(3_600);
  });

  it('gives different people different accounts, and one person always the same', async () => {
    const accounts = await Promise.all(
      ['grace@polydev.test', 'alan@polydev.test', 'grace@polydev.test'].map(async (email) => {
        const { access_token } = await idp.tokens(email);
        return claimsOf(access_token)['https://api.openai.com/auth'].chatgpt_account_id;
      }),
    );
    expect(accounts[0]).toBe(accounts[2]);
    expect(accounts[0]).not.toBe(accounts[1]);
  });

  it('refuses a verifier that does not fit, and the code is spent', async () => {
    const { code, verifier } = await idp.code();
    const wrong = await idp.exchange(code, `${verifier}x`);
    expect(wrong).toMatchObject({ status: 400, json: { error: 'invalid_grant' } });
    expect(wrong.text).toContain('PKCE');
    expect((await idp.exchange(code, verifier)).status).toBe(400);
  });

  it('refuses a code the second time', async () => {
    const { code, verifier } = await idp.code();
    expect((await idp.exchange(code, verifier)).status).toBe(200);
    const again = await idp.exchange(code, verifier);
    expect(again).toMatchObject({ status: 400, json: { error_description: 'code was already used' } });
  });

  it.each([
    ['client_id', 'somebody-else'],
    ['redirect_uri', 'http://127.0.0.1:1457/auth/callback'],
    ['code', 'no-such-code'],
    ['grant_type', 'password'],
  ])('refuses another %s', async (name, value) => {
    const { code, verifier } = await idp.code();
    expect((await idp.exchange(code, verifier, { [name]: value })).status).toBe(400);
  });

  it('gives no refresh token to no-refresh@, and refuses refused-code@', async () => {
    const without = await idp.code(emailFor('no-refresh'));
    const { status, json } = await idp.exchange(without.code, without.verifier);
    expect(status).toBe(200);
    expect(json).toHaveProperty('access_token');
    expect(json).not.toHaveProperty('refresh_token');
    const refused = await idp.code(emailFor('refused-code'));
    expect((await idp.exchange(refused.code, refused.verifier)).status).toBe(400);
  });

  it('gives short-lived@ an access token inside the refresh margin, and a long one at the refresh', async () => {
    const first = await idp.tokens(emailFor('short-lived'));
    expect(claimsOf(first.access_token).exp - claimsOf(first.access_token).iat).toBeLessThan(300);
    const second = Tokens.parse((await idp.refresh(first.refresh_token)).json);
    expect(claimsOf(second.access_token).exp - claimsOf(second.access_token).iat).toBe(3_600);
  });

  it('has no API key to give', async () => {
    const grant_type = 'urn:ietf:params:oauth:grant-type:token-exchange';
    expect((await idp.call({ path: '/oauth/token', form: { grant_type } })).status).toBe(401);
  });
});

describe('refresh and revocation', () => {
  const codeOf = (json: unknown) => (json as { error?: { code?: string } } | undefined)?.error?.code;

  it('rotates: each refresh token works once, and its successor after it', async () => {
    const first = await idp.tokens();
    const second = Tokens.parse((await idp.refresh(first.refresh_token)).json);
    expect(second.refresh_token).not.toBe(first.refresh_token);
    const reused = await idp.refresh(first.refresh_token);
    expect(reused.status).toBe(401);
    expect(codeOf(reused.json)).toBe('refresh_token_reused');
    expect((await idp.refresh(second.refresh_token)).status).toBe(200);
  });

  it('refuses a token it never gave', async () => {
    expect((await idp.refresh('rt_invented')).status).toBe(401);
    expect((await idp.refresh('__proto__')).status).toBe(401);
  });

  it('revokes the whole family of a token', async () => {
    const first = await idp.tokens();
    const second = Tokens.parse((await idp.refresh(first.refresh_token)).json);
    const json = { token: first.refresh_token, token_type_hint: 'refresh_token', client_id: CLIENT.id };
    expect((await idp.call({ path: '/oauth/revoke', json })).status).toBe(200);
    const after = await idp.refresh(second.refresh_token);
    expect([after.status, codeOf(after.json)]).toEqual([401, 'refresh_token_invalidated']);
  });
});

describe('the device flow', () => {
  const start = async () => {
    const path = '/api/accounts/deviceauth/usercode';
    const { json } = await idp.call({ path, json: { client_id: CLIENT.id } });
    return { device_auth_id: String(json?.device_auth_id), user_code: String(json?.user_code) };
  };
  const poll = (device: object) => idp.call({ path: '/api/accounts/deviceauth/token', json: device });
  const enter = async (user_code: string, decision: string) => {
    const page = await idp.call({
      path: '/codex/device',
      form: { user_code: ` ${user_code.toLowerCase()} ` },
    });
    const visit = visitIn(page.text);
    await idp.signIn(visit);
    return idp.decide(visit, decision);
  };

  it('is pending until the person allows, then gives a code that can be exchanged once', async () => {
    const device = await start();
    expect((await poll(device)).status).toBe(403);
    expect((await enter(device.user_code, 'allow')).text).toContain('The device is connected');
    const { status, json } = await poll(device);
    expect(status).toBe(200);
    const redirect_uri = 'https://auth.openai.com/deviceauth/callback';
    const [code, verifier] = [String(json?.authorization_code), String(json?.code_verifier)];
    expect((await idp.exchange(code, verifier, { redirect_uri })).status).toBe(200);
    expect((await poll(device)).status).toBe(400);
  });

  it('ends with a denial, and knows no foreign codes', async () => {
    const device = await start();
    await enter(device.user_code, 'deny');
    expect((await poll(device)).status).toBe(400);
    const unknown = await idp.call({ path: '/codex/device', form: { user_code: 'XXXX-XXXXX' } });
    expect([unknown.status, visitIn(unknown.text)]).toEqual([403, '']);
  });
});

describe('chatgpt.com', () => {
  const host = 'chatgpt.com';
  const path = '/backend-api/codex/responses';
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

  it('names the account of the token, and nobody without one', async () => {
    const { access_token } = await idp.tokens();
    const check = { host, path: '/backend-api/wham/accounts/check' };
    const { json } = await idp.call({ ...check, headers: bearer(access_token) });
    const id = claimsOf(access_token)['https://api.openai.com/auth'].chatgpt_account_id;
    expect(json).toMatchObject({ accounts: [{ id }] });
    expect((await idp.call(check)).status).toBe(401);
    const [header, , signature] = access_token.split('.');
    const forged = Buffer.from(JSON.stringify({ ...claimsOf(access_token), sub: 'other' })).toString(
      'base64url',
    );
    const headers = bearer(`${header}.${forged}.${signature}`);
    expect((await idp.call({ ...check, headers })).status).toBe(401);
  });

  it('streams an answer that repeats the prompt', async () => {
    const { access_token } = await idp.tokens();
    const input = [{ role: 'user', content: [{ type: 'input_text', text: 'good morning' }] }];
    const { status, text } = await idp.call({ host, path, json: { input }, headers: bearer(access_token) });
    expect(status).toBe(200);
    const types = [...text.matchAll(/^event: (.+)$/gm)].map(([, type]) => type);
    expect([types[0], types.at(-1)]).toEqual(['response.created', 'response.completed']);
    expect(text).toContain(`${ANSWER_PREFIX}good morning`);
  });

  it('refuses a web socket with 426', async () => {
    const headers = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' };
    expect((await idp.call({ host, path, headers })).status).toBe(426);
  });
});

describe('the server', () => {
  it('answers 404 to what it does not know and 421 to a host it is not', async () => {
    expect((await idp.call({ path: '/backend-api/wham/accounts/check' })).status).toBe(404);
    expect((await idp.call({ host: 'chatgpt.com', path: '/oauth/authorize' })).status).toBe(404);
    expect((await idp.call({ path: '/constructor' })).status).toBe(404);
    expect((await idp.call({ path: '/', headers: { host: 'example.com' } })).status).toBe(421);
  });

  it('logs one line a request, without anything that was sent', async () => {
    const before = idp.log.length;
    const { code, verifier } = await idp.code();
    const tokens = Tokens.parse((await idp.exchange(code, verifier)).json);
    await idp.refresh(tokens.refresh_token);
    const lines = idp.log.slice(before);
    expect(lines.map(({ path }) => path)).toEqual([
      '/oauth/authorize',
      '/oauth/sign-in',
      '/oauth/consent',
      '/oauth/token',
      '/oauth/token',
    ]);
    const text = JSON.stringify(idp.log);
    for (const secret of [code, verifier, CANARY, TEST_PERSON.password, TEST_PERSON.email, '?']) {
      expect(text).not.toContain(secret);
    }
  });

  it('keeps its directory to itself, with no key of the authority and no token in it', async () => {
    await idp.tokens();
    expect(statSync(idp.state).mode & 0o777).toBe(0o700);
    const files = (await readdir(idp.state)).sort();
    expect(files).toEqual(['ca.pem', 'server.key', 'server.pem', 'state.json']);
    const kept = await readFile(`${idp.state}/state.json`, 'utf8');
    expect(kept).not.toContain(CANARY);
  });

  it('goes on after a restart: same authority, codes and refresh tokens still good, used ones still used', async () => {
    await using first = await Fixture.start();
    const { code, verifier } = await first.code();
    const old = await first.tokens();
    const next = Tokens.parse((await first.refresh(old.refresh_token)).json);
    const authority = await readFile(`${first.state}/ca.pem`, 'utf8');
    await first.stop();
    await using second = await Fixture.start(first.state);
    expect(await readFile(`${second.state}/ca.pem`, 'utf8')).toBe(authority);
    expect((await second.exchange(code, verifier)).status).toBe(200);
    expect((await second.refresh(old.refresh_token)).status).toBe(401);
    expect((await second.refresh(next.refresh_token)).status).toBe(200);
    const headers = { authorization: `Bearer ${next.access_token}` };
    const check = { host: 'chatgpt.com', path: '/backend-api/wham/accounts/check', headers };
    expect((await second.call(check)).status).toBe(200);
  });
});
