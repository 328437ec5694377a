import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Person } from './person.ts';
import { missing } from './requirements.ts';
import { RfbClient } from './rfb.ts';

const WAIT = { deadlineMs: 10_000 };
const lacking = missing('Xvnc');

describe.skipIf(lacking.length > 0)(
  `with a real X server (missing: ${lacking.join(', ') || 'nothing'})`,
  () => {
    let dir: string;
    let socket: string;
    let xvnc: ReturnType<typeof spawn>;
    beforeAll(async () => {
      dir = mkdtempSync(join(tmpdir(), 'rfb-'));
      socket = join(dir, 'vnc.sock');
      const screen = ['-geometry', '320x200', '-depth', '24', '-SecurityTypes', 'None', '-displayfd', '3'];
      // -retro: stippled ground and a visible pointer, so that there is something to see without any program.
      const closed = ['-retro', '-rfbport', '-1', '-rfbunixpath', socket, '-nolisten', 'tcp'];
      xvnc = spawn('Xvnc', [...screen, ...closed], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
      const announced = xvnc.stdio[3];
      if (announced) await once(announced, 'data', { signal: AbortSignal.timeout(20_000) });
      while (!existsSync(socket)) await sleep(20);
    });
    afterAll(async () => {
      const ended = once(xvnc, 'exit');
      xvnc.kill('SIGTERM');
      await ended;
      rmSync(dir, { recursive: true, force: true });
    });

    it('has the whole picture when it is connected', async () => {
      using rfb = await RfbClient.connect(dial(socket));
      const { width, height, pixels } = rfb.screen;
      expect([width, height, pixels.length]).toEqual([320, 200, 320 * 200 * 4]);
      const colours = new Set(Array.from({ length: 320 * 200 }, (_, i) => pixels.readUIntBE(i * 4, 3)));
      expect([...colours].sort()).toEqual([0x000000, 0xffffff]);
    });

    it('sees the pointer where it moves it, and follows a change made by somebody else', async () => {
      using moving = await RfbClient.connect(dial(socket));
      using watching = await RfbClient.connect(dial(socket));
      const cut = (rfb: RfbClient, x: number, y: number) => {
        const rows = Array.from({ length: 16 }, (_, row) => ((y + row) * rfb.screen.width + x) * 4);
        return Buffer.concat(rows.map((at) => rfb.screen.pixels.subarray(at, at + 64)));
      };
      moving.movePointer(10, 10);
      await sleep(200);
      const before = [moving, watching].map((rfb) => Buffer.from(cut(rfb, 200, 120)));
      moving.movePointer(204, 124);
      for (const [i, rfb] of [moving, watching].entries()) {
        const changed = () => !cut(rfb, 200, 120).equals(before[i] ?? Buffer.alloc(0)) || undefined;
        await rfb.waitFor(changed, 'the pointer', WAIT);
      }
    });

    it('follows a new desktop size', async () => {
      const stream = dial(socket);
      using rfb = await RfbClient.connect(stream);
      // SetDesktopSize (251): what a viewer sends when its window changes; one screen, id 0, filling everything.
      const resize = Buffer.alloc(24);
      resize.writeUInt8(251, 0);
      for (const [at, value] of [
        [2, 400],
        [4, 260],
        [16, 400],
        [18, 260],
      ] as const)
        resize.writeUInt16BE(value, at);
      resize.writeUInt8(1, 6);
      stream.write(resize);
      const size = await rfb.waitFor(
        ({ width, height }) => (width === 400 ? [width, height] : undefined),
        'size',
        WAIT,
      );
      expect(size).toEqual([400, 260]);
      expect(rfb.screen.pixels.length).toBe(400 * 260 * 4);
    });

    it('says what a person saw when they wait in vain, and stops when called off', async () => {
      using rfb = await RfbClient.connect(dial(socket));
      const person = new Person(rfb);
      await expect(person.see('sign-in', { deadlineMs: 100 })).rejects.toMatchObject({
        code: 'desktop_failed',
        message: expect.stringMatching(
          /in vain for sign-in; the screen shows no page of the test identity provider/,
        ),
      });
      const calledOff = new Error('called off');
      const control = new AbortController();
      const waiting = person.see('sign-in', { ...WAIT, signal: control.signal });
      control.abort(calledOff);
      await expect(waiting).rejects.toBe(calledOff);
    });

    it('takes screenshots until the person looks away', async () => {
      using rfb = await RfbClient.connect(dial(socket));
      const person = new Person(rfb);
      expect(person.screenshot().length).toBeGreaterThan(100);
      person.lookAway();
      expect(() => person.screenshot()).toThrow(/no screenshot after consent/);
    });
  },
);

describe('with a server that misbehaves', () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.close();
  });

  /** A client whose server does `behave` with each connection. */
  async function against(behave: (socket: Socket) => void): Promise<Socket> {
    server = createServer((socket) => {
      socket.on('error', () => {});
      behave(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    return dial(typeof address === 'object' && address ? address.port : 0, '127.0.0.1');
  }
  const none = [Buffer.from('RFB 003.008\n'), Buffer.from([1, 1]), Buffer.from([0, 0, 0, 0])];
  const init = (width: number, height: number) => {
    const message = Buffer.alloc(24);
    message.writeUInt16BE(width, 0);
    message.writeUInt16BE(height, 2);
    return message;
  };

  it.each<[string, (socket: Socket) => void, RegExp]>([
    ['is silent', () => {}, /did not answer within 300 ms/],
    ['hangs up', (socket) => socket.end(), /the stream ended/],
    ['speaks something else', (socket) => socket.write('SSH-2.0-x\r\n\r\n'), /does not speak RFB 3\.8/],
    ['wants a password', (socket) => socket.write('RFB 003.008\n\x01\x02'), /asks for a password/],
    [
      'claims a huge screen',
      (socket) => socket.write(Buffer.concat([...none, init(65_535, 65_535)])),
      /65535x65535/,
    ],
    [
      'sends what was not asked for',
      (socket) =>
        socket.write(
          Buffer.concat([
            ...none,
            init(8, 8),
            Buffer.from([0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0, 8, 0, 0, 0, 16]),
          ]),
        ),
      /broke/,
    ],
    [
      'paints outside the screen',
      (socket) =>
        socket.write(
          Buffer.concat([...none, init(8, 8), Buffer.from([0, 0, 0, 1, 0, 4, 0, 4, 0, 8, 0, 8, 0, 0, 0, 0])]),
        ),
      /broke/,
    ],
  ])('that %s', async (_, behave, message) => {
    const stream = await against(behave);
    const error = await RfbClient.connect(stream, { deadlineMs: 300 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'desktop_failed', message: expect.stringMatching(message) });
    expect(stream.destroyed).toBe(true);
  });

  it('that loses the connection later: whoever waits is told', async () => {
    const picture = Buffer.from([0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 2, 3, 0]);
    const stream = await against((socket) => {
      socket.write(Buffer.concat([...none, init(1, 1), picture]));
      setTimeout(() => socket.destroy(), 100);
    });
    using rfb = await RfbClient.connect(stream);
    expect([...rfb.screen.pixels.subarray(0, 3)]).toEqual([1, 2, 3]);
    await expect(rfb.waitFor(() => undefined, 'anything', WAIT)).rejects.toMatchObject({
      code: 'desktop_failed',
      message: expect.stringContaining('broke'),
    });
    expect(() => rfb.key(0x61, true)).toThrow(/broke/);
  });
});
