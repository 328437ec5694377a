/** What each call does and how it fails, for one operator. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { newMachineId } from '../../protocol/ids.ts';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

let api: TestApi;
beforeEach(async () => {
  api = await createTestApi();
});
afterEach(() => api[Symbol.asyncDispose]());

const send = (method: 'GET' | 'POST' | 'DELETE', url: string, payload?: object) =>
  api.app.inject({ method, url, headers: bearer(api.keys.operator), ...(payload && { payload }) });

describe('sessions', () => {
  it('start with defaults, are found and listed', async () => {
    const started = await send('POST', '/api/auth/start', { provider: 'codex', realm: 'test' });
    expect(started.statusCode).toBe(201);
    const session = started.json();
    expect(session).toMatchObject({ state: 'queued', account: 'default', realm: 'test', userId: 'operator' });
    expect((await send('GET', `/api/auth/session/${session.id}`)).json()).toEqual(session);
    expect((await send('GET', '/api/auth/sessions')).json().sessions).toEqual([session]);
  });

  it('refuse the test realm where it is not allowed', async () => {
    const strict = await createTestApi({ allowTestRealm: false });
    const headers = bearer(strict.keys.operator);
    const payload = { provider: 'codex', realm: 'test' };
    const reply = await strict.app.inject({ method: 'POST', url: '/api/auth/start', headers, payload });
    expect(reply.json().error.code).toBe('forbidden');
    expect((await strict.app.inject({ url: '/api/me', headers })).json().realms).toEqual(['internet']);
    expect(strict.services.sessions.size).toBe(0);
    await strict[Symbol.asyncDispose]();
  });

  it('name the fields that are wrong and not their values', async () => {
    const reply = await send('POST', '/api/auth/start', {
      provider: 'hunter2',
      expiresInSeconds: 1,
      passwd: 'x',
    });
    expect(reply.statusCode).toBe(400);
    const { error } = reply.json();
    expect(error.code).toBe('bad_request');
    expect(error.message).toMatch(/body\.provider.*body\.expiresInSeconds.*passwd/s);
    expect(error.message).not.toContain('hunter2');
    expect(error.requestId).toMatch(/^[0-9a-f-]{36}$/);
  });

  it.each([
    ['text that is not JSON', { payload: '{', headers: { 'content-type': 'application/json' } }],
    ['another content type', { payload: '<x/>', headers: { 'content-type': 'application/xml' } }],
    [
      'too much',
      {
        payload: JSON.stringify({ provider: 'x'.repeat(70_000) }),
        headers: { 'content-type': 'application/json' },
      },
    ],
    ['nothing', {}],
  ])(
    'refuse %s as a bad request',
    async (_name, { payload, headers }: { payload?: string; headers?: object }) => {
      const reply = await api.app.inject({
        method: 'POST',
        url: '/api/auth/start',
        headers: { ...bearer(api.keys.operator), ...headers },
        ...(payload === undefined ? {} : { payload }),
      });
      expect(reply.statusCode).toBe(400);
      expect(reply.json().error.code).toBe('bad_request');
    },
  );

  it('pass on what the services refuse, with its code', async () => {
    api.services.failure = new PolydevError('login_in_progress', 'one is under way', { lines: ['proof'] });
    const reply = await send('POST', '/api/auth/start', { provider: 'codex' });
    expect(reply.statusCode).toBe(409);
    expect(reply.json().error).toMatchObject({ code: 'login_in_progress', fault: 'user', lines: ['proof'] });
  });

  it('take input only when they wait for a person', async () => {
    const waiting = api.services.addSession();
    expect(
      (await send('POST', `/api/auth/session/${waiting.id}/input`, { text: 'code#state' })).statusCode,
    ).toBe(204);
    expect(api.services.inputs).toEqual([{ id: waiting.id, text: 'code#state' }]);
    const queued = api.services.addSession({}, 'queued');
    const refused = await send('POST', `/api/auth/session/${queued.id}/input`, { text: 'x' });
    expect(refused.json().error).toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('queued'),
    });
  });

  it.each(['/api/auth/session/', '/api/vm/auth/'])(
    'are cancelled by DELETE %s, as often as wanted',
    async (path) => {
      const { id } = api.services.addSession();
      for (let time = 0; time < 2; time += 1) {
        const reply = await send('DELETE', path + id);
        expect(reply.json()).toMatchObject({ id, state: 'cancelled', actions: [] });
      }
      const completed = api.services.addSession({}, 'completed');
      expect((await send('DELETE', path + completed.id)).json().state).toBe('completed');
    },
  );

  it('lead to their live page', async () => {
    const { id } = api.services.addSession();
    const reply = await send('GET', `/api/auth/session/${id}/novnc`);
    expect([reply.statusCode, reply.headers.location]).toEqual([302, `/sessions/${id}/desktop`]);
  });

  it('say what they captured: nothing, something broken, or a credential', async () => {
    const { id } = api.services.addSession();
    const status = async () => (await send('GET', `/api/auth/session/${id}/credentials/status`)).json();
    expect(await status()).toEqual({ provider: 'codex', state: 'absent', facts: null, problem: null });
    const report = new PolydevError('credential_incomplete', 'no refresh token').toReport();
    api.services.setSession(id, { error: report });
    expect(await status()).toMatchObject({ state: 'incomplete', problem: 'no refresh token' });
    const credential = api.services.addCredential();
    api.services.setSession(id, { credentialId: credential.id, error: null });
    expect(await status()).toMatchObject({ state: 'complete', facts: credential.facts });
  });
});

describe('machines', () => {
  it('show their console and evidence as plain text', async () => {
    const { id } = api.services.addMachine();
    expect((await send('GET', `/api/machines/${id}`)).json().id).toBe(id);
    const text = await send('GET', `/api/machines/${id}/console`);
    expect([text.body, text.headers['content-type']]).toEqual([
      `console of ${id}\n`,
      'text/plain; charset=utf-8',
    ]);
    const { files } = (await send('GET', `/api/machines/${id}/evidence`)).json();
    expect(files).toMatchObject([{ name: 'console.log' }]);
    expect((await send('GET', `/api/machines/${id}/evidence/console.log`)).body).toBe('evidence\n');
    expect((await send('GET', `/api/machines/${id}/evidence/other.log`)).statusCode).toBe(404);
  });

  it.each(['..%2f..%2fetc%2fpasswd', '.hidden', 'a%00b'])('refuse the file name %s', async (name) => {
    const { id } = api.services.addMachine();
    expect((await send('GET', `/api/machines/${id}/evidence/${name}`)).json().error.code).toBe('bad_request');
  });

  it('stop, start and go', async () => {
    const { id } = api.services.addMachine();
    expect((await send('POST', `/api/machines/${id}/start`)).json().error.code).toBe('conflict');
    expect((await send('POST', `/api/machines/${id}/stop`)).json().state).toBe('stopped');
    expect((await send('POST', `/api/machines/${id}/start`)).json().state).toBe('ready');
    expect((await send('DELETE', `/api/machines/${id}`)).json().state).toBe('destroyed');
    expect((await send('DELETE', `/api/machines/${id}`)).json().state).toBe('destroyed');
  });

  it('that never were are not found, and malformed ids are a mistake', async () => {
    expect((await send('GET', `/api/machines/${newMachineId()}`)).json().error.code).toBe('not_found');
    expect((await send('GET', '/api/machines/m_1')).json().error).toMatchObject({
      code: 'bad_request',
      message: expect.stringContaining('params.id'),
    });
  });
});

describe('credentials and hosts', () => {
  it('lists providers with what the person connected', async () => {
    const mine = api.services.addCredential();
    const { providers } = (await send('GET', '/api/providers')).json();
    expect(providers.find(({ id }: { id: string }) => id === 'codex').connected).toEqual([mine]);
    const others = (await send('GET', '/api/providers?userId=ann')).json().providers;
    expect(others.find(({ id }: { id: string }) => id === 'codex').connected).toEqual([]);
  });

  it('forgets a credential', async () => {
    const { id } = api.services.addCredential();
    expect((await send('DELETE', `/api/credentials/${id}`)).statusCode).toBe(204);
    expect((await send('GET', '/api/credentials')).json()).toEqual({ credentials: [] });
    expect((await send('DELETE', `/api/credentials/${id}`)).statusCode).toBe(404);
  });

  it('lists hosts', async () => {
    expect((await send('GET', '/api/hosts')).json().hosts).toEqual(api.services.hostList);
  });

  it('has a host examined, and knows when there is no such host', async () => {
    const check = { name: 'kvm', state: 'warn' as const, evidence: 'forbidden', remedy: 'chmod' };
    api.services.doctorReport = { at: new Date().toISOString(), ok: true, checks: [check] };
    expect((await send('GET', '/api/hosts/local/doctor')).json()).toEqual(api.services.doctorReport);
    expect((await send('GET', '/api/hosts/other/doctor')).statusCode).toBe(404);
  });
});

describe('operation', () => {
  it('is ready when every part is, and names those that are not', async () => {
    let database: string | undefined = 'Postgres does not answer';
    const one = await createTestApi({
      readiness: [{ name: 'database', check: async () => database }],
      timing: { readyMs: 0 },
    });
    const ready = async () => {
      const reply = await one.app.inject('/ready');
      const { parts, ready } = reply.json();
      const missing = parts.filter((part: { problem: unknown }) => part.problem !== null);
      return { status: reply.statusCode, ready, missing: missing.map((part: { name: string }) => part.name) };
    };
    expect(await ready()).toEqual({ status: 503, ready: false, missing: ['database'] });
    database = undefined;
    expect(await ready()).toEqual({ status: 200, ready: true, missing: [] });
    one.services.hostList = one.services.hostList.map((host) => ({ ...host, ok: false, image: null }));
    expect(await ready()).toEqual({ status: 503, ready: false, missing: ['host_service', 'image'] });
    one.services.hosts.list = async () => {
      throw new Error('connect to 10.1.2.3 as admin');
    };
    expect((await ready()).missing).toEqual(['host_service', 'image']);
    expect((await one.app.inject('/ready')).body).not.toContain('10.1.2.3');
    one.services.hosts.list = async () => [];
    expect((await ready()).missing).toEqual(['host_service', 'image']);
    await one[Symbol.asyncDispose]();
  });

  it('asks its parts once for all who ask whether it is ready', async () => {
    let asked = 0;
    const gate = Promise.withResolvers<void>();
    const check = async () => {
      asked++;
      await gate.promise;
      return undefined;
    };
    const one = await createTestApi({ readiness: [{ name: 'part', check }], timing: { readyMs: 60_000 } });
    let listed = 0;
    one.services.hosts.list = async () => {
      listed++;
      return one.services.hostList;
    };
    const replies = [1, 2, 3].map(() => one.app.inject('/ready'));
    gate.resolve();
    for (const reply of await Promise.all(replies)) expect(reply.statusCode).toBe(200);
    expect((await one.app.inject('/ready')).statusCode).toBe(200);
    expect({ asked, listed }).toEqual({ asked: 1, listed: 1 });
    await one[Symbol.asyncDispose]();
  });

  it('counts requests by route, endings once, machines and steps', async () => {
    const { id } = api.services.addSession();
    api.services.addMachine();
    api.services.addEvent(id, 'step', 'capture', 1500);
    api.services.move(id, 'completed');
    await send('GET', `/api/auth/session/${id}`);
    await send('GET', '/metrics');
    const { body } = await send('GET', '/metrics');
    expect(body).toContain(
      'polydev_sessions_ended_total{provider="codex",realm="internet",state="completed",code="none"} 1',
    );
    expect(body).toContain('polydev_machines{kind="cli",state="ready"} 1');
    expect(body).toContain('polydev_session_step_seconds_sum{step="capture"} 1.5');
    expect(body).toContain(
      'polydev_http_request_seconds_count{method="GET",route="/api/auth/session/:id",status="200"} 1',
    );
    expect(body).not.toContain(id);
  });

  it('hides what failed inside, and logs it under the request’s id', async () => {
    api.services.machines.list = async () => {
      throw new Error('connection string postgresql://u:pw@h');
    };
    const reply = await send('GET', '/api/machines');
    expect(reply.statusCode).toBe(500);
    const { error } = reply.json();
    expect(error).toMatchObject({ code: 'internal', fault: 'system' });
    expect(reply.body).not.toContain('postgresql');
    const line = api
      .log()
      .split('\n')
      .find((entry) => entry.includes(error.requestId) && entry.includes('call refused'));
    expect(line).toContain('connection string');
  });
});
