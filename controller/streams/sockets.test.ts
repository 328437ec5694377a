/** Desktop and terminal over real WebSockets on a listening server. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId, SessionId } from '../../protocol/ids.ts';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

let api: TestApi;
let url: string;
const sockets: WebSocket[] = [];
beforeEach(async () => {
  api = await createTestApi({ timing: { checkMs: 50 } });
  url = await api.listen();
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.terminate();
  await api[Symbol.asyncDispose]();
});

type Target = { purpose: 'desktop'; sessionId: SessionId } | { purpose: 'terminal'; machineId: MachineId };

async function ticketPath(
  target: Target,
  headers: Record<string, string> = bearer(api.keys.operator),
): Promise<string> {
  const reply = await fetch(`${url}/api/tickets`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(target),
  });
  expect(reply.status).toBe(201);
  const { webSocketPath } = (await reply.json()) as { webSocketPath: string };
  return webSocketPath;
}

function connect(path: string, protocols: string[] = []): WebSocket {
  const socket = new WebSocket(url.replace('http', 'ws') + path, protocols);
  socket.on('error', () => undefined);
  sockets.push(socket);
  return socket;
}

const closing = async (socket: WebSocket): Promise<{ code: number; reason: string }> => {
  const [code, reason]: [number, Buffer] = (await once(socket, 'close')) as [number, Buffer];
  return { code, reason: reason.toString() };
};

/** The status with which an upgrade was refused. */
async function refusal(path: string): Promise<number> {
  const socket = connect(path);
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode: number }];
  return response.statusCode;
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !condition(); tries += 1) await delay(10);
  expect(condition()).toBe(true);
}

async function openDesktop(headers?: Record<string, string>, protocols?: string[]) {
  const session = api.services.addSession();
  const socket = connect(await ticketPath({ purpose: 'desktop', sessionId: session.id }, headers), protocols);
  await once(socket, 'open');
  await until(() => api.services.desktops.length > 0);
  const end = api.services.desktops.at(-1);
  if (end === undefined) throw new Error('no desktop');
  return { session, socket, far: end.far };
}

describe('the desktop', () => {
  it('relays bytes both ways unchanged and leaves an audit row', async () => {
    const { socket, far, session } = await openDesktop();
    const greeting = once(socket, 'message');
    far.write(Buffer.from('RFB 003.008\n'));
    expect(await greeting).toEqual([Buffer.from('RFB 003.008\n'), true]);
    const bytes = Buffer.from([0, 255, 10, 13, 128]);
    socket.send(bytes);
    expect(await once(far, 'data')).toEqual([bytes]);
    expect(api.audit.entries).toMatchObject([{ action: 'desktop.open', target: session.id }]);
  });

  it('keeps what the page sends before the machine is reached', async () => {
    const session = api.services.addSession();
    const original = api.services.machines.desktop;
    const reached = Promise.withResolvers<void>();
    api.services.machines.desktop = async (id) => {
      await reached.promise;
      return original(id);
    };
    const socket = connect(await ticketPath({ purpose: 'desktop', sessionId: session.id }));
    await once(socket, 'open');
    socket.send('early', { binary: true });
    await delay(50);
    reached.resolve();
    await until(() => api.services.desktops.length > 0);
    const [data] = await once(api.services.desktops[0]?.far ?? socket, 'data');
    expect(String(data)).toBe('early');
  });

  it.each([
    [['binary'], 'binary'],
    [['other', 'binary'], 'binary'],
    [[], ''],
  ])('agrees on the subprotocol for an offer of %j', async (offered, agreed) => {
    const { socket } = await openDesktop(undefined, offered);
    expect(socket.protocol).toBe(agreed);
  });

  it('moves a lot both ways without growing: a slow reader slows the writer', async () => {
    const { socket, far } = await openDesktop();
    const chunk = Buffer.alloc(65_536, 7);
    const total = 24 * 1024 * 1024;
    socket.pause();
    let written = 0;
    let blocked = false;
    const writing = (async () => {
      while (written < total) {
        written += chunk.length;
        if (!far.write(chunk)) {
          const drained = once(far, 'drain');
          const stuck = await Promise.race([drained.then(() => false), delay(300, true)]);
          if (stuck) {
            blocked = true;
            socket.resume();
          }
          await drained;
        }
      }
    })();
    let received = 0;
    const all = new Promise<void>((resolve) => {
      socket.on('message', (data: Buffer) => {
        received += data.length;
        if (received >= total) resolve();
      });
    });
    await Promise.all([writing, all]);
    expect(blocked).toBe(true);
    expect(received).toBe(written);

    // The other way: nobody reads at the machine, so the page cannot push everything.
    let taken = 0;
    for (let sent = 0; sent < total; sent += chunk.length) socket.send(chunk);
    let waiting = -1;
    while (waiting !== socket.bufferedAmount) {
      waiting = socket.bufferedAmount;
      await delay(300);
    }
    expect(waiting).toBeGreaterThan(0);
    expect(api.services.desktops[0]?.near.writableLength).toBeLessThan(2 * 1024 * 1024);
    const drained = new Promise<void>((resolve) => {
      far.on('data', (data: Buffer) => {
        taken += data.length;
        if (taken >= total) resolve();
      });
    });
    await drained;
    expect(taken).toBe(total);
  });

  it('closes the page when the machine closes, and the machine when the page closes', async () => {
    const first = await openDesktop();
    first.far.end();
    expect(await closing(first.socket)).toMatchObject({ code: 1000 });
    const second = await openDesktop();
    second.socket.close();
    await until(() => second.far.destroyed);
  });

  it.each(['completed', 'cancelled', 'failed', 'expired'] as const)(
    'ends when the session is %s',
    async (state) => {
      const { session, socket, far } = await openDesktop();
      const closed = closing(socket);
      api.services.move(session.id, state);
      expect(await closed).toEqual({ code: 1000, reason: 'the session is over' });
      await until(() => far.destroyed);
    },
  );

  it('ends when the page sends text or too much at once', async () => {
    const first = await openDesktop();
    first.socket.send('text');
    expect((await closing(first.socket)).code).toBe(1003);
    const second = await openDesktop();
    second.socket.send(Buffer.alloc(1_048_577));
    expect((await closing(second.socket)).code).toBe(1009);
    await until(() => second.far.destroyed);
  });

  it('names the reason when the machine cannot be reached', async () => {
    const session = api.services.addSession();
    const path = await ticketPath({ purpose: 'desktop', sessionId: session.id });
    api.services.failure = new PolydevError('machine_unreachable', `no answer ${'é'.repeat(200)}`);
    const { code, reason } = await closing(connect(path));
    expect(code).toBe(1011);
    expect(reason).toMatch(/^machine_unreachable: no answer é/);
  });

  it('is not opened when it cannot be audited', async () => {
    api.audit.record = async () => {
      throw new Error('no database');
    };
    const session = api.services.addSession();
    const { code } = await closing(connect(await ticketPath({ purpose: 'desktop', sessionId: session.id })));
    expect(code).toBe(1011);
    await until(() => api.services.desktops[0]?.far.destroyed === true);
  });

  it('cuts off a page that answers no ping', async () => {
    await api[Symbol.asyncDispose]();
    api = await createTestApi({ timing: { pingMs: 50 } });
    url = await api.listen();
    const { socket, far } = await openDesktop();
    // A paused socket reads nothing, so it answers nothing.
    socket.pause();
    await until(() => far.destroyed);
  });
});

describe('tickets on the wire', () => {
  it('open one stream once', async () => {
    const session = api.services.addSession();
    const path = await ticketPath({ purpose: 'desktop', sessionId: session.id });
    const socket = connect(path);
    await once(socket, 'open');
    expect(await refusal(path)).toBe(401);
  });

  it('are needed, and for the right purpose', async () => {
    const machine = api.services.addMachine();
    const path = await ticketPath({ purpose: 'terminal', machineId: machine.id });
    expect(await refusal('/api/desktop')).toBe(401);
    expect(await refusal('/api/desktop?ticket=x.y')).toBe(401);
    expect(await refusal(path.replace('terminals', 'desktop'))).toBe(401);
    expect(await refusal('/api/machines')).toBe(400);
    expect(await refusal('/nothing')).toBe(400);
    expect(api.services.desktops).toEqual([]);
  });

  it('do not outlive the identity that asked for them', async () => {
    const session = api.services.addSession();
    const path = await ticketPath({ purpose: 'desktop', sessionId: session.id });
    api.access.revokeKey(api.keys.operator);
    expect(await refusal(path)).toBe(401);
  });

  it('are refused for what has nothing to open', async () => {
    const over = api.services.addSession({}, 'completed');
    const browser = api.services.addMachine({ kind: 'browser' });
    for (const payload of [
      { purpose: 'desktop', sessionId: over.id },
      { purpose: 'terminal', machineId: browser.id },
    ]) {
      const reply = await api.app.inject({
        method: 'POST',
        url: '/api/tickets',
        headers: bearer(api.keys.operator),
        payload,
      });
      expect(reply.json().error.code).toBe('conflict');
    }
  });
});

describe('a stream ends with its identity', () => {
  it('at once at sign-out', async () => {
    const { token } = api.access.addSession('operator', 'operator');
    const headers = { cookie: `polydev_session=${token}`, 'sec-fetch-site': 'same-origin' };
    const { socket, far } = await openDesktop(headers);
    const other = await openDesktop();
    const closed = closing(socket);
    await fetch(`${url}/api/sign-out`, { method: 'POST', headers });
    expect(await closed).toEqual({ code: 1008, reason: 'signed out' });
    await until(() => far.destroyed);
    expect(other.socket.readyState).toBe(WebSocket.OPEN);
  });

  it('soon after a key is revoked elsewhere', async () => {
    const { socket } = await openDesktop();
    const closed = closing(socket);
    api.access.revokeKey(api.keys.operator);
    expect((await closed).code).toBe(1008);
  });

  it('and when the controller stops', async () => {
    const { socket, far } = await openDesktop();
    const closed = closing(socket);
    await api.app.close();
    expect((await closed).code).toBe(1001);
    expect(far.destroyed).toBe(true);
  });
});

describe('a page that reacts to nothing', () => {
  it('does not keep the controller from stopping', async () => {
    const { socket, far } = await openDesktop();
    socket.pause();
    await api.app.close();
    expect(far.destroyed).toBe(true);
  });
});

describe('the terminal', () => {
  async function openTerminal(more = '') {
    const machine = api.services.addMachine({ state: 'stopped' });
    const socket = connect((await ticketPath({ purpose: 'terminal', machineId: machine.id })) + more);
    await once(socket, 'open');
    await until(() => api.services.terminals.length > 0);
    const record = api.services.terminals.at(-1);
    if (record === undefined) throw new Error('no terminal');
    return { machine, socket, record };
  }

  it('starts a stopped machine, carries keys and output, and resizes', async () => {
    const { machine, socket, record } = await openTerminal('&cols=100&rows=30');
    expect(api.services.machineMap.get(machine.id)?.state).toBe('ready');
    expect(record.sizes).toEqual([{ cols: 100, rows: 30 }]);
    socket.send(Buffer.from('ls\r'));
    expect(String((await once(record.end.far, 'data'))[0])).toBe('ls\r');
    const output = once(socket, 'message');
    record.end.far.write('file\r\n');
    expect(String((await output)[0])).toBe('file\r\n');
    socket.send(JSON.stringify({ type: 'size', cols: 120, rows: 1 }));
    socket.send(JSON.stringify({ type: 'size', cols: 120, rows: 40 }));
    await until(() => record.sizes.length > 1);
    expect(record.sizes).toEqual([
      { cols: 100, rows: 30 },
      { cols: 120, rows: 40 },
    ]);
    expect(api.audit.entries).toMatchObject([{ action: 'terminal.open', target: machine.id }]);
  });

  it.each(['not json', '{"type":"exec"}'])('ends on the control message %s', async (text) => {
    const { socket, record } = await openTerminal();
    socket.send(text);
    expect((await closing(socket)).code).toBe(1008);
    await until(() => record.closed);
  });

  it('is closed in the machine when the page goes, and in the page when the shell or machine ends', async () => {
    const first = await openTerminal();
    first.socket.terminate();
    await until(() => first.record.closed);
    const second = await openTerminal();
    second.record.end.far.end();
    expect((await closing(second.socket)).code).toBe(1000);
    const third = await openTerminal();
    const closed = closing(third.socket);
    api.services.moveMachine(third.machine.id, 'destroyed');
    expect(await closed).toEqual({ code: 1000, reason: 'the machine is gone' });
    await until(() => third.record.closed);
  });
});
