/** Who gets in where: every route against every kind of caller, ownership, sign-in, sign-out, cross-site calls, limits. */
import type { InjectOptions } from 'fastify';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newCredentialId, newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

const COOKIE = 'polydev_session';
/** What needs no identity; everything else must refuse a stranger. */
const OPEN = ['GET /sign-in', 'GET /health', 'GET /ready', 'GET /openapi.json', 'GET /*'];
const BY_TICKET = ['GET /api/desktop', 'GET /api/terminals'];
const OPERATORS_ONLY = [
  'GET /api/hosts',
  'GET /api/hosts/:id/doctor',
  'GET /metrics',
  'POST /api/sign-in-links',
];

const ann = UserId.parse('ann');

let api: TestApi;
beforeEach(async () => {
  api = await createTestApi();
});
afterEach(() => api[Symbol.asyncDispose]());

const call = (options: InjectOptions) => api.app.inject(options);

/** A route with ids that are well-formed and unknown. */
function concrete(route: string): { method: 'GET' | 'POST' | 'DELETE'; url: string } {
  const [method, url = ''] = route.split(' ');
  const id = url.startsWith('/api/machines')
    ? newMachineId()
    : url.startsWith('/api/credentials')
      ? newCredentialId()
      : url.startsWith('/api/hosts')
        ? 'local'
        : newSessionId();
  return {
    method: method as 'GET',
    url: url.replace(':id', id).replace(':name', 'console.log').replace(':provider', 'codex'),
  };
}

describe('identity', () => {
  it('is needed on every route that is not open', async () => {
    const closed = api.routes.filter((route) => !route.startsWith('HEAD ') && !OPEN.includes(route));
    expect(closed.length).toBeGreaterThan(25);
    const limited = await createTestApi({ limits: { refusedPerAddress: 1000 } });
    for (const route of closed) {
      for (const headers of [
        {},
        bearer('pdk_wrong'),
        bearer('eyJ.jwt.x'),
        { cookie: `${COOKIE}=pdw_wrong` },
      ]) {
        const reply = await limited.app.inject({ ...concrete(route), headers });
        const expected = BY_TICKET.includes(route) ? 'bad_request' : 'unauthenticated';
        expect(reply.json().error, `${route} with ${JSON.stringify(headers)}`).toMatchObject({
          code: expected,
        });
      }
    }
    await limited[Symbol.asyncDispose]();
  });

  it('opens the open ones to strangers', async () => {
    expect((await call({ url: '/health' })).json()).toMatchObject({ ok: true });
    expect((await call({ url: '/ready' })).statusCode).toBe(200);
    expect((await call({ url: '/openapi.json' })).json().openapi).toBe('3.1.0');
  });

  it('keeps what is the operators’ from people', async () => {
    for (const route of OPERATORS_ONLY) {
      const refused = await call({ ...concrete(route), headers: bearer(api.keys.ann) });
      expect(refused.json().error.code, route).toBe('forbidden');
      const allowed = await call({ ...concrete(route), headers: bearer(api.keys.operator) });
      expect(allowed.statusCode, route).toBeLessThan(300);
    }
  });

  it('says who the caller is', async () => {
    const me = async (headers: Record<string, string>) => (await call({ url: '/api/me', headers })).json();
    expect(await me(bearer(api.keys.operator))).toEqual({
      userId: 'operator',
      role: 'operator',
      realms: ['internet', 'test'],
    });
    const { token } = api.access.addSession('ann', 'user');
    expect(await me({ cookie: `${COOKIE}=${token}` })).toMatchObject({ userId: 'ann', role: 'user' });
  });

  it('asks further authenticators in turn', async () => {
    const other = await createTestApi({
      authenticators: [
        {
          name: 'test',
          authenticate: async (request) =>
            request.headers['x-person'] === 'ann'
              ? { userId: ann, role: 'user', proof: { kind: 'api_key', id: 'x' } }
              : undefined,
        },
      ],
    });
    expect((await other.app.inject({ url: '/api/me', headers: { 'x-person': 'ann' } })).json().userId).toBe(
      'ann',
    );
    expect((await other.app.inject({ url: '/api/me', headers: { 'x-person': 'eve' } })).statusCode).toBe(401);
    await other[Symbol.asyncDispose]();
  });
});

describe('ownership', () => {
  it('hides every object from everybody but its owner and the operator', async () => {
    const session = api.services.addSession({ userId: ann });
    const machine = api.services.addMachine({ userId: ann });
    const credential = api.services.addCredential({ userId: ann });
    const calls: { method: 'GET' | 'POST' | 'DELETE'; url: string; payload?: object }[] = [
      { method: 'GET', url: `/api/auth/session/${session.id}` },
      { method: 'GET', url: `/api/auth/session/${session.id}/events` },
      { method: 'GET', url: `/api/auth/session/${session.id}/novnc` },
      { method: 'GET', url: `/api/auth/session/${session.id}/credentials/status` },
      { method: 'POST', url: `/api/auth/session/${session.id}/input`, payload: { text: 'x' } },
      { method: 'DELETE', url: `/api/auth/session/${session.id}` },
      { method: 'DELETE', url: `/api/vm/auth/${session.id}` },
      { method: 'GET', url: `/api/machines/${machine.id}` },
      { method: 'GET', url: `/api/machines/${machine.id}/console` },
      { method: 'GET', url: `/api/machines/${machine.id}/evidence` },
      { method: 'GET', url: `/api/machines/${machine.id}/evidence/console.log` },
      { method: 'POST', url: `/api/machines/${machine.id}/stop` },
      { method: 'POST', url: `/api/machines/${machine.id}/start` },
      { method: 'DELETE', url: `/api/machines/${machine.id}` },
      { method: 'POST', url: '/api/tickets', payload: { purpose: 'desktop', sessionId: session.id } },
      { method: 'POST', url: '/api/tickets', payload: { purpose: 'terminal', machineId: machine.id } },
      { method: 'DELETE', url: `/api/credentials/${credential.id}` },
    ];
    for (const { payload, ...where } of calls) {
      const reply = await call({ ...where, ...(payload && { payload }), headers: bearer(api.keys.bob) });
      expect(reply.json().error.code, `${where.method} ${where.url}`).toBe('not_found');
    }
    expect(api.services.sessions.get(session.id)?.state).toBe('waiting_for_person');
    expect(api.services.machineMap.get(machine.id)?.state).toBe('ready');
    expect(api.services.credentialMap.has(credential.id)).toBe(true);
    expect(api.services.inputs).toEqual([]);
    for (const key of [api.keys.ann, api.keys.operator]) {
      for (const url of [`/api/auth/session/${session.id}`, `/api/machines/${machine.id}`]) {
        expect((await call({ url, headers: bearer(key) })).statusCode).toBe(200);
      }
    }
  });

  it('shows in lists only what is the caller’s, and everything to an operator that names nobody', async () => {
    api.services.addSession({ userId: ann });
    api.services.addCredential({ userId: ann });
    api.services.addSession();
    api.services.addCredential();
    const count = async (url: string, key: string) => {
      const body: object = (await call({ url, headers: bearer(key) })).json();
      return Object.values(body)[0]?.length;
    };
    for (const url of ['/api/auth/sessions', '/api/machines', '/api/credentials']) {
      expect(await count(url, api.keys.ann), url).toBe(1);
      expect(await count(url, api.keys.bob), url).toBe(0);
      expect(await count(url, api.keys.operator), url).toBe(2);
      expect(await count(`${url}?userId=ann`, api.keys.operator), url).toBe(1);
      const named = await call({ url: `${url}?userId=ann`, headers: bearer(api.keys.bob) });
      expect(named.json().error.code, url).toBe('forbidden');
    }
  });

  it('lets only an operator start a login for somebody else', async () => {
    const start = (key: string, userId?: string) =>
      call({
        method: 'POST',
        url: '/api/auth/start',
        headers: bearer(key),
        payload: { provider: 'codex', ...(userId && { userId }) },
      });
    expect((await start(api.keys.bob, 'ann')).json().error.code).toBe('forbidden');
    expect((await start(api.keys.bob)).json().userId).toBe('bob');
    expect((await start(api.keys.operator, 'ann')).json().userId).toBe('ann');
    expect((await start(api.keys.operator)).json().userId).toBe('operator');
  });
});

describe('sign-in', () => {
  it('works once, sets a strict cookie and goes to the dashboard', async () => {
    const made = await call({
      method: 'POST',
      url: '/api/sign-in-links',
      headers: bearer(api.keys.operator),
    });
    expect(made.statusCode).toBe(201);
    const url = new URL(made.json().url);
    const path = url.pathname + url.search;
    expect((await call({ method: 'HEAD', url: path })).statusCode).toBe(404);

    const opened = await call({ url: path });
    expect(opened.statusCode).toBe(303);
    expect(opened.headers.location).toBe('/');
    const [cookie] = opened.cookies;
    expect(cookie).toMatchObject({ name: COOKIE, path: '/', httpOnly: true, sameSite: 'Strict' });
    expect(cookie).not.toHaveProperty('secure');
    const me = await call({ url: '/api/me', cookies: { [COOKIE]: cookie?.value ?? '' } });
    expect(me.json()).toMatchObject({ userId: 'operator', role: 'operator' });

    const again = await call({ url: path });
    expect(again.json().error.code).toBe('unauthenticated');
    expect(again.cookies).toEqual([]);
    const browser = await call({ url: path, headers: { accept: 'text/html,*/*;q=0.8' } });
    expect(browser.statusCode).toBe(303);
    expect(browser.headers.location).toBe('/?sign-in=refused');
    expect(browser.cookies).toEqual([]);
    expect(api.audit.entries.map(({ action }) => action)).toEqual(['sign_in_link.create', 'sign_in']);
  });

  it('is Secure behind https', async () => {
    const https = await createTestApi({ publicUrl: new URL('https://polydev.example.org') });
    const made = await https.app.inject({
      method: 'POST',
      url: '/api/sign-in-links',
      headers: bearer(https.keys.operator),
    });
    expect(made.json().url).toMatch(/^https:\/\/polydev\.example\.org\/sign-in\?token=/);
    const url = new URL(made.json().url);
    const opened = await https.app.inject(url.pathname + url.search);
    expect(opened.cookies[0]).toMatchObject({ name: '__Host-polydev_session', secure: true, path: '/' });
    expect(opened.headers['strict-transport-security']).toBeDefined();
    await https[Symbol.asyncDispose]();
  });

  it('cannot be prolonged by a browser session', async () => {
    const { token } = api.access.addSession('operator', 'operator');
    const reply = await call({
      method: 'POST',
      url: '/api/sign-in-links',
      headers: { 'sec-fetch-site': 'same-origin' },
      cookies: { [COOKIE]: token },
    });
    expect(reply.json().error.code).toBe('forbidden');
  });

  it('ends with sign-out', async () => {
    const { token } = api.access.addSession('ann', 'user');
    const cookies = { [COOKIE]: token };
    const headers = { 'sec-fetch-site': 'same-origin' };
    const out = await call({ method: 'POST', url: '/api/sign-out', headers, cookies });
    expect(out.statusCode).toBe(204);
    expect(out.cookies[0]).toMatchObject({ name: COOKIE, value: '' });
    expect((await call({ url: '/api/me', cookies })).statusCode).toBe(401);
    const byKey = await call({ method: 'POST', url: '/api/sign-out', headers: bearer(api.keys.ann) });
    expect(byKey.json().error.code).toBe('conflict');
  });
});

describe('a cross-site call with the cookie', () => {
  const attempt = async (headers: Record<string, string>, app = api) => {
    const { token } = app.access.addSession('ann', 'user');
    const reply = await app.app.inject({
      method: 'POST',
      url: '/api/auth/start',
      headers: { host: 'polydev.test:4000', ...headers },
      cookies: { [COOKIE]: token },
      payload: { provider: 'codex' },
    });
    return reply.statusCode;
  };

  it.each([
    ['another site', { 'sec-fetch-site': 'cross-site', origin: 'http://polydev.test:4000' }, 403],
    ['another subdomain', { 'sec-fetch-site': 'same-site' }, 403],
    ['a navigation', { 'sec-fetch-site': 'none' }, 403],
    ['another origin', { origin: 'http://evil.test' }, 403],
    ['another port', { origin: 'http://polydev.test:5000' }, 403],
    ['an opaque origin', { origin: 'null' }, 403],
    ['nothing said', {}, 403],
    ['our own page', { 'sec-fetch-site': 'same-origin' }, 201],
    ['our own origin', { origin: 'http://polydev.test:4000' }, 201],
  ])('from %s', async (_name, headers, status) => {
    expect(await attempt(headers)).toBe(status);
    expect(api.services.sessions.size).toBe(status === 201 ? 1 : 0);
  });

  it('may read, and an API key needs no origin', async () => {
    const { token } = api.access.addSession('ann', 'user');
    const read = await call({
      url: '/api/me',
      headers: { 'sec-fetch-site': 'none' },
      cookies: { [COOKIE]: token },
    });
    expect(read.statusCode).toBe(200);
    const byKey = await call({
      method: 'POST',
      url: '/api/auth/start',
      headers: { ...bearer(api.keys.ann), 'sec-fetch-site': 'cross-site' },
      payload: { provider: 'codex' },
    });
    expect(byKey.statusCode).toBe(201);
  });
});

describe('limits', () => {
  it('stop one caller, not the others, and never the health checks', async () => {
    const small = await createTestApi({ limits: { perCaller: 3 } });
    const status = async (key: string) =>
      (await small.app.inject({ url: '/api/me', headers: bearer(key) })).statusCode;
    for (let call = 0; call < 3; call += 1) expect(await status(small.keys.ann)).toBe(200);
    const refused = await small.app.inject({ url: '/api/me', headers: bearer(small.keys.ann) });
    expect(refused.json().error.code).toBe('rate_limited');
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    expect(await status(small.keys.bob)).toBe(200);
    expect((await small.app.inject('/health')).statusCode).toBe(200);
    await small[Symbol.asyncDispose]();
  });

  it('stop an address that guesses, even when a guess would be right', async () => {
    const small = await createTestApi({ limits: { refusedPerAddress: 3 } });
    for (let guess = 0; guess < 3; guess += 1) {
      const wrong = await small.app.inject({ url: '/api/me', headers: bearer(`pdk_guess${guess}`) });
      expect(wrong.statusCode).toBe(401);
    }
    for (const key of ['pdk_guess4', small.keys.operator]) {
      expect((await small.app.inject({ url: '/api/me', headers: bearer(key) })).statusCode).toBe(429);
    }
    await small[Symbol.asyncDispose]();
  });

  it('counts people behind a proxy on this computer apart, and believes nobody else', async () => {
    const publicUrl = new URL('https://polydev.example.org');
    const proxied = await createTestApi({ publicUrl, limits: { refusedPerAddress: 2 } });
    const from = async (remoteAddress: string, forwarded: string, key: string) =>
      (
        await proxied.app.inject({
          url: '/api/me',
          remoteAddress,
          headers: { ...bearer(key), 'x-forwarded-for': forwarded },
        })
      ).statusCode;
    for (let guess = 0; guess < 3; guess++) await from('127.0.0.1', '203.0.113.7', 'pdk_guess');
    expect(await from('127.0.0.1', '203.0.113.7', proxied.keys.ann)).toBe(429);
    expect(await from('127.0.0.1', '203.0.113.8', proxied.keys.ann)).toBe(200);
    for (let guess = 0; guess < 3; guess++) await from('192.0.2.1', `203.0.113.${20 + guess}`, 'pdk_guess');
    expect(await from('192.0.2.1', '203.0.113.30', proxied.keys.ann)).toBe(429);
    await proxied[Symbol.asyncDispose]();
  });

  it('are stricter for what starts machines', async () => {
    const small = await createTestApi({ limits: { startsPerCaller: 1 } });
    const start = () =>
      small.app.inject({
        method: 'POST',
        url: '/api/auth/start',
        headers: bearer(small.keys.ann),
        payload: { provider: 'codex' },
      });
    expect((await start()).statusCode).toBe(201);
    expect((await start()).statusCode).toBe(429);
    expect((await small.app.inject({ url: '/api/me', headers: bearer(small.keys.ann) })).statusCode).toBe(
      200,
    );
    await small[Symbol.asyncDispose]();
  });
});
