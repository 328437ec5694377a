/** Server-sent events and prompt streams on a listening server. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { UserId } from '../../protocol/ids.ts';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

let api: TestApi;
let url: string;
beforeEach(async () => {
  api = await createTestApi({ timing: { heartbeatMs: 30, checkMs: 30 } });
  url = await api.listen();
});
afterEach(() => api[Symbol.asyncDispose]());

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(url + path, {
    headers: { ...bearer(api.keys.operator), ...headers },
    signal: AbortSignal.timeout(10_000),
  });

/** Reads text until `enough` says so or the reply ends; a broken connection leaves `[broken off]` at the end. */
async function read(reply: Response, enough: (text: string) => boolean = () => false): Promise<string> {
  if (reply.body === null) throw new Error('no body');
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const part = await reader.read().catch(() => undefined);
    if (part === undefined) return `${text}[broken off]`;
    if (part.done) return text;
    text += part.value;
    if (enough(text)) {
      await reader.cancel();
      return text;
    }
  }
}

/** The events of a stream as an EventSource would give them. */
function events(
  text: string,
): { id?: string; event: string; data: { name?: string; state?: string; code?: string } }[] {
  return text
    .split('\n\n')
    .filter((block) => block.includes('data: '))
    .map((block) => {
      const field = (name: string) =>
        block
          .split('\n')
          .find((line) => line.startsWith(`${name}: `))
          ?.slice(name.length + 2);
      const id = field('id');
      return { ...(id && { id }), event: field('event') ?? 'message', data: JSON.parse(field('data') ?? '') };
    });
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !condition(); tries += 1) await delay(10);
  expect(condition()).toBe(true);
}

describe('the events of a session', () => {
  it('come as they happen and end with the session', async () => {
    const { id } = api.services.addSession({}, 'queued');
    const reply = await get(`/api/auth/session/${id}/events`);
    expect(reply.headers.get('content-type')).toContain('text/event-stream');
    const reading = read(reply);
    await delay(20);
    api.services.addEvent(id, 'step', 'machine', 12);
    api.services.move(id, 'preparing');
    await delay(20);
    api.services.move(id, 'completed');
    const got = events(await reading);
    expect(got.map(({ event, data }) => `${event} ${data.name ?? data.state}`)).toEqual([
      'message queued',
      'message machine',
      'message preparing',
      'message completed',
      'end completed',
    ]);
    const ids = got.slice(0, -1).map(({ id }) => Number(id));
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
  });

  it('go on after the last one that a page has', async () => {
    const { id, timeline } = api.services.addSession();
    const next = api.services.addEvent(id, 'step', 'next');
    api.services.move(id, 'cancelled');
    const last = String(timeline.at(-1)?.seq);
    for (const reply of [
      await get(`/api/auth/session/${id}/events`, { 'last-event-id': last }),
      await get(`/api/auth/session/${id}/events?after=${last}`),
    ]) {
      const got = events(await read(reply));
      expect(got.map(({ data }) => data.name ?? data.state)).toEqual(['next', 'cancelled', 'cancelled']);
      expect(got[0]?.id).toBe(String(next.seq));
    }
  });

  it('answer 204 to a reconnect after the end, which stops an EventSource', async () => {
    const { id } = api.services.addSession();
    const ended = String(api.services.move(id, 'failed').timeline.at(-1)?.seq);
    expect((await get(`/api/auth/session/${id}/events`, { 'last-event-id': ended })).status).toBe(200);
    const last = String(api.services.addEvent(id, 'step', 'clean_up').seq);
    expect((await get(`/api/auth/session/${id}/events`, { 'last-event-id': last })).status).toBe(204);
    expect((await get(`/api/auth/session/${id}/events`)).status).toBe(200);
  });

  it('beat in silence', async () => {
    const { id } = api.services.addSession();
    const reply = await get(`/api/auth/session/${id}/events`);
    const text = await read(reply, (soFar) => soFar.split(': beat\n\n').length > 3);
    expect(events(text)).toHaveLength(1);
  });

  it('stop being watched when the page goes away, its key is revoked or the controller stops', async () => {
    const { id } = api.services.addSession();
    const watched = () => api.app.inject({ url: '/metrics', headers: bearer(api.keys.operator) });
    const open = await get(`/api/auth/session/${id}/events`);
    expect((await watched()).body).toContain('polydev_open_streams{purpose="events"} 1');
    await open.body?.cancel();
    for (let tries = 0; tries < 300; tries += 1) {
      if (!(await watched()).body.includes('polydev_open_streams{purpose="events"}')) break;
      await delay(10);
    }
    expect((await watched()).body).not.toContain('polydev_open_streams{purpose="events"}');

    const key = api.access.addKey('operator', 'operator');
    const revoked = read(await get(`/api/auth/session/${id}/events`, bearer(key)));
    api.access.revokeKey(key);
    expect(await revoked).toMatch(/^(?!.*event: end).*\[broken off\]$/s);

    const stopped = read(await get(`/api/auth/session/${id}/events`));
    await delay(20);
    await api.app.close();
    expect(await stopped).toMatch(/^(?!.*event: end).*\[broken off\]$/s);
  });
});

describe('a prompt', () => {
  const prompt = (body: object, headers: Record<string, string> = {}) =>
    fetch(`${url}/api/cli/codex/exec`, {
      method: 'POST',
      headers: { ...bearer(api.keys.operator), 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  const connected = (state: 'ready' | 'stopped' = 'ready') => {
    const machine = api.services.addMachine({ state });
    api.services.addCredential({ holderMachineId: machine.id });
    return machine;
  };

  it('runs the CLI in the person’s machine and streams what it prints', async () => {
    const machine = connected('stopped');
    const reply = await prompt({ prompt: 'say "hi"; $(rm -rf /)' });
    expect(reply.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = (await read(reply)).split('\n').filter((line) => line !== '');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      { type: 'stdout', text: 'hello\n' },
      { type: 'exit', code: 0, signal: null, timedOut: false },
    ]);
    expect(api.services.machineMap.get(machine.id)?.state).toBe('ready');
    expect(api.services.execs[0]?.id).toBe(machine.id);
    // One argument, whatever it holds: no shell is near.
    expect(api.services.execs[0]?.request.argv).toContain('say "hi"; $(rm -rf /)');
    expect(api.audit.entries).toMatchObject([{ action: 'cli.prompt', target: machine.id }]);
  });

  it('streams server-sent events when asked to', async () => {
    connected();
    const reply = await prompt({ prompt: 'x' }, { accept: 'text/event-stream' });
    expect(events(await read(reply)).map(({ event }) => event)).toEqual(['stdout', 'exit']);
  });

  it('ends the command when the caller goes away', async () => {
    connected();
    api.services.execScript = async function* (_request, signal) {
      yield { type: 'stdout', text: 'working' };
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    await read(await prompt({ prompt: 'x' }), (text) => text.includes('working'));
    await until(() => api.services.execs[0]?.aborted === true);
  });

  it('says what failed on the way as its last event', async () => {
    connected();
    api.services.execScript = async function* () {
      yield { type: 'stdout', text: 'half' };
      throw new PolydevError('machine_unreachable', 'gone');
    };
    const lines = (await read(await prompt({ prompt: 'x' }))).split('\n').filter((line) => line !== '');
    expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({
      type: 'error',
      error: { code: 'machine_unreachable' },
    });
  });

  it('needs a connected machine of the person and of the realm', async () => {
    connected();
    const code = async (body: object, key = api.keys.operator) =>
      ((await (await prompt(body, bearer(key))).json()) as { error: { code: string } }).error.code;
    expect(await code({ prompt: 'x', realm: 'test' })).toBe('credential_missing');
    expect(await code({ prompt: 'x', userId: 'ann' })).toBe('credential_missing');
    expect(await code({ prompt: 'x', userId: 'operator' }, api.keys.ann)).toBe('forbidden');
    expect(await code({ prompt: '' })).toBe('bad_request');
    expect(api.services.execs).toEqual([]);
  });

  it('wakes a machine that will get the credential when nobody holds it', async () => {
    const asleep = api.services.addMachine({ userId: UserId.parse('ann'), state: 'stopped' });
    api.services.addCredential({ userId: UserId.parse('ann'), holderMachineId: null });
    await read(await prompt({ prompt: 'x' }, bearer(api.keys.ann)));
    expect(api.services.execs.at(-1)?.id).toBe(asleep.id);
    expect(api.services.machineMap.get(asleep.id)?.state).toBe('ready');
  });
});
