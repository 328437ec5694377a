/** Nothing that opens a door is in the log, whatever way it came. */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';
import { scrub } from './logging.ts';

let api: TestApi;
let url: string;
beforeEach(async () => {
  api = await createTestApi();
  url = await api.listen();
});
afterEach(() => api[Symbol.asyncDispose]());

describe('the log', () => {
  it('holds no key, token, cookie, ticket, prompt or pasted code', async () => {
    const secrets: string[] = Object.values(api.keys);
    const operator = bearer(api.keys.operator);
    const json = { 'content-type': 'application/json' };
    const post = (path: string, body: object, headers: Record<string, string>) =>
      fetch(url + path, { method: 'POST', headers: { ...json, ...headers }, body: JSON.stringify(body) });

    const link = (await (await post('/api/sign-in-links', {}, operator)).json()) as { url: string };
    const token = new URL(link.url).searchParams.get('token') ?? '';
    secrets.push(token);
    for (let time = 0; time < 2; time += 1) {
      const reply = await fetch(link.url.replace(/^http:\/\/[^/]+/, url), { redirect: 'manual' });
      const cookie = /polydev_session=([^;]+)/.exec(reply.headers.get('set-cookie') ?? '')?.[1];
      if (cookie !== undefined) {
        secrets.push(cookie);
        const headers = { cookie: `polydev_session=${cookie}`, 'sec-fetch-site': 'same-origin' };
        await fetch(`${url}/api/me`, { headers });
        await post('/api/sign-out', {}, headers);
      }
    }
    expect(secrets).toHaveLength(5);

    const session = api.services.addSession();
    const opened = await post('/api/tickets', { purpose: 'desktop', sessionId: session.id }, operator);
    const { ticket, webSocketPath } = (await opened.json()) as { ticket: string; webSocketPath: string };
    secrets.push(ticket, ticket.split('.')[0] ?? '', ticket.split('.')[1] ?? '');
    const socket = new WebSocket(url.replace('http', 'ws') + webSocketPath);
    await once(socket, 'open');
    // Spent, on a path that is no WebSocket, on a path that does not exist, and one that cannot be decoded.
    for (const path of [webSocketPath, `/api/me?ticket=${ticket}`, `/nothing?ticket=${ticket}`]) {
      const refused = new WebSocket(url.replace('http', 'ws') + path);
      refused.on('error', () => undefined);
      await once(refused, 'unexpected-response').then(() => refused.terminate());
    }
    for (const path of [`/api/nothing?token=${token}`, `/nothing?code=${ticket}`, `/%zz?token=${token}`]) {
      await fetch(url + path);
    }
    secrets.push('s3cret-pasted-code');
    await post(`/api/auth/session/${session.id}/input`, { text: 's3cret-pasted-code' }, operator);
    await post(
      `/api/auth/session/${session.id}/input`,
      { 's3cret-pasted-code': 's3cret-pasted-code'.repeat(1000) },
      {
        authorization: `Bearer ${api.keys.ann}x`,
      },
    );
    socket.terminate();
    await api.app.close();

    const log = api.log();
    expect(log.split('\n').length).toBeGreaterThan(20);
    expect(log).toContain('/api/desktop');
    expect(log).toContain('"path":"/sign-in"');
    for (const secret of secrets) expect(log).not.toContain(secret);
  });

  it('is cleaned of what others wrote into errors', () => {
    api.app.log.error(
      { err: new Error('GET /api/desktop?ticket=t1cket failed') },
      'for Bearer pdk_abcdefgh1234',
    );
    expect(api.log()).toContain('ticket=[redacted] failed');
    expect(api.log()).not.toMatch(/t1cket|pdk_abcdefgh/);
  });

  it('cuts secrets out of text that others wrote', () => {
    const line = scrub(
      '{"err":"GET http://h/x?code=abc&state=def#f failed","a":"Bearer eyJx.y","b":"pdk_ABCdef123456","c":"polydev_session=pdw_1; path"}',
    );
    expect(line).not.toMatch(/abc|def|eyJx|ABC|pdw_1/);
    expect(JSON.parse(line)).toMatchObject({ err: 'GET http://h/x?code=[redacted]&state=[redacted] failed' });
  });
});
