import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { type Duplex, PassThrough } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { encodeFrame, FRAME, MARK_BYTES, WINDOW } from './frames.ts';
import { Multiplexer } from './multiplexer.ts';

const mark = randomBytes(MARK_BYTES);
const soon = () => AbortSignal.timeout(10_000);

/** A serial port between two multiplexers; each side can be replaced, as a restart does. */
function pair(take: (stream: Duplex, port: number) => void) {
  const accept = (port: number) => (port === 22 ? undefined : (stream: Duplex) => take(stream, port));
  const ends = { host: new PassThrough(), guest: new PassThrough() };
  const plug = (side: 'host' | 'guest', other: 'host' | 'guest') => {
    const input = new PassThrough();
    const output = new PassThrough();
    ends[side] = input;
    // What comes while nobody is there is lost.
    output.on('data', (bytes: Buffer) => ends[other].destroyed || ends[other].write(bytes));
    return { input, output };
  };
  const newHost = (says = mark) => new Multiplexer({ pipe: plug('host', 'guest'), mark: says });
  const newGuest = () => new Multiplexer({ pipe: plug('guest', 'host'), mark, accept });
  const host = newHost();
  const guest = newGuest();
  return { toHost: ends.host, newHost, newGuest, host, guest };
}

/** Unlike once(), not ended by an error before. */
const closing = (stream: Duplex): Promise<void> =>
  new Promise((resolve) => {
    stream.once('close', () => resolve());
  });

const echo = (stream: Duplex): void => void stream.pipe(stream);

describe('multiplexer', () => {
  it('carries a stream both ways, with its end, and refuses a port nobody serves', async () => {
    const { host } = pair(echo);
    const stream = await host.open(8080, soon());
    stream.end('hello');
    expect(await text(stream)).toBe('hello');
    await expect(host.open(22, soon())).rejects.toThrow('no stream to port 22');
  });

  it('goes on under another mark, which a new host must say', async () => {
    const { host, guest, newHost } = pair(echo);
    const kept = await host.open(8080, soon());
    const next = randomBytes(MARK_BYTES);
    guest.remark(next);
    host.remark(next);
    kept.end('still here');
    expect(await text(kept)).toBe('still here');
    host.close();
    const stranger = newHost();
    await expect(stranger.open(8080, AbortSignal.timeout(300))).rejects.toThrow();
    stranger.close();
    const stream = await newHost(next).open(8080, soon());
    stream.end('hello');
    expect(await text(stream)).toBe('hello');
  });

  it('carries many streams at once without mixing them', async () => {
    const { host } = pair(echo);
    const results = await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const stream = await host.open(8080, soon());
        const sent = randomBytes(200_000 + index * 7919);
        const received = buffer(stream);
        stream.end(sent);
        return (await received).equals(sent);
      }),
    );
    expect(results.every(Boolean)).toBe(true);
  });

  it('stops a writer whose reader is slow, and only that one', async () => {
    const held: Duplex[] = [];
    const { host } = pair((stream, port) => {
      if (port === 1) held.push(stream);
      else echo(stream);
    });
    const slow = await host.open(1, soon());
    const sent = randomBytes(8 * WINDOW);
    let written = 0;
    const writing = (async () => {
      for (let at = 0; at < sent.length; at += 8192) {
        await new Promise<void>((resolve) => {
          slow.write(sent.subarray(at, at + 8192), () => resolve());
        });
        written = at;
      }
      slow.end();
    })();
    const fast = await host.open(2, soon());
    const other = randomBytes(4 * WINDOW);
    const back = buffer(fast);
    fast.end(other);
    expect((await back).equals(other)).toBe(true);
    await sleep(50);
    expect(written).toBeLessThanOrEqual(WINDOW);
    const [stream] = held;
    if (stream === undefined) throw new Error('nothing was accepted');
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    const received = await buffer(stream);
    await writing;
    expect(digest(received)).toBe(digest(sent));
  });

  it('tells the other side when a stream breaks', async () => {
    let taken: Duplex | undefined;
    const { host } = pair((stream) => {
      taken = stream;
    });
    const stream = await host.open(8080, soon());
    const closed = closing(stream);
    taken?.destroy(new Error('enough'));
    await closed;
    expect(stream.errored?.message).toBe('enough');
    const again = await host.open(8080, soon());
    const gone = closing(taken as Duplex);
    again.destroy();
    await gone;
  });

  it('waits for a guest that comes later, and gives up when asked to', async () => {
    const toGuest = new PassThrough();
    const toHost = new PassThrough();
    const host = new Multiplexer({ pipe: { input: toHost, output: toGuest }, mark });
    await expect(host.open(8080, AbortSignal.timeout(30))).rejects.toThrow();
    const opening = host.open(8080, soon());
    const guest = new Multiplexer({ pipe: { input: toGuest, output: toHost }, mark, accept: () => echo });
    const stream = await opening;
    stream.end('x');
    expect(await text(stream)).toBe('x');
    guest.close();
    await host.closed;
    await expect(host.open(8080, soon())).rejects.toThrow('closed');
  });

  it('goes on after either side was replaced in the middle of data', async () => {
    const { host, guest, newGuest, newHost } = pair(echo);
    const first = await host.open(8080, soon());
    first.write(randomBytes(100_000));
    const broken = closing(first);
    guest.close();
    newGuest();
    await broken;
    const second = await host.open(8080, soon());
    second.end('after the guest');
    expect(await text(second)).toBe('after the guest');

    const third = await host.open(8080, soon());
    third.write(randomBytes(100_000));
    host.close();
    const next = newHost();
    const fourth = await next.open(8080, soon());
    fourth.end('after the host');
    expect(await text(fourth)).toBe('after the host');
  });

  it.each([
    ['noise', randomBytes(70_000)],
    ['a frame that is too long', Buffer.from([3, 255, 255, 255, 0, 0, 0, 1])],
    [
      'data of a stream that is not open',
      encodeFrame({ type: FRAME.data, stream: 9, payload: Buffer.alloc(9) }),
    ],
    [
      'a grant beyond the window',
      encodeFrame({ type: FRAME.grant, stream: 1, payload: Buffer.alloc(4, 255) }),
    ],
    ['a stream opened by the guest', encodeFrame({ type: FRAME.open, stream: 7, payload: Buffer.alloc(2) })],
    ['the mark with a wrong nonce', Buffer.concat([mark, randomBytes(16)])],
    ['the mark alone', Buffer.concat([mark, Buffer.alloc(16)])],
  ])('goes on after %s from the guest', async (_, garbage) => {
    const { host, toHost } = pair(echo);
    await host.open(8080, soon());
    toHost.write(garbage);
    // Noise may look like the start of a frame that never ends; the next start of the guest clears it.
    toHost.write(Buffer.concat([mark, Buffer.alloc(16)]));
    await sleep(20);
    const stream = await host.open(8080, soon());
    stream.end('still here');
    expect(await text(stream)).toBe('still here');
  });

  it('refuses data beyond what was granted', async () => {
    const { host, toHost } = pair(() => undefined);
    const stream = await host.open(8080, soon());
    const closed = closing(stream);
    for (let sent = 0; sent <= WINDOW; sent += 16_000) {
      toHost.write(encodeFrame({ type: FRAME.data, stream: 1, payload: Buffer.alloc(16_000) }));
    }
    await closed;
    expect(stream.errored?.message).toContain('beyond what was granted');
  });

  it('serves HTTP with keep-alive and upgrades', async () => {
    const server = createServer((incoming, response) => {
      incoming.pipe(response);
    });
    server.on('upgrade', (_request, socket: Duplex) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
      echo(socket);
    });
    const { host } = pair((stream) => server.emit('connection', stream));
    const call = async (body: string): Promise<string> => {
      const stream = await host.open(8080, soon());
      const sent = request({ method: 'POST', path: '/', createConnection: () => stream });
      sent.end(body);
      const [response] = (await once(sent, 'response')) as [Duplex];
      return text(response);
    };
    expect(await Promise.all(['a', 'b', 'c'.repeat(300_000)].map(call))).toEqual([
      'a',
      'b',
      'c'.repeat(300_000),
    ]);
    const stream = await host.open(8080, soon());
    const upgrade = request({
      path: '/',
      headers: { connection: 'upgrade', upgrade: 'tcp' },
      createConnection: () => stream,
    });
    upgrade.end();
    const [, socket] = (await once(upgrade, 'upgrade')) as [unknown, Duplex];
    socket.end('raw');
    expect(await text(socket)).toBe('raw');
  });
});
