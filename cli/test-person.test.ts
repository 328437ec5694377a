/** What the robot person hears of a desktop; what it does there is shown end to end, on real machines. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { expect, it } from 'vitest';
import { newSessionId } from '../protocol/ids.ts';
import type { Api } from './api.ts';
import { signInOnDesktop } from './test-person.ts';

/** The handshake's answer and the first frame in one segment, as a controller's words arrive at a busy program. */
function answerAtOnce(socket: Duplex, key: string, payload: Buffer): void {
  // RFC 6455, sections 4.2.2 and 5.2: a final binary frame of fewer than 126 bytes, unmasked.
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  const head = [
    'HTTP/1.1 101 Switching Protocols',
    'Connection: Upgrade',
    'Upgrade: websocket',
    `Sec-WebSocket-Accept: ${accept}`,
    'Sec-WebSocket-Protocol: binary',
  ];
  const frame = Buffer.concat([Buffer.from([0x82, payload.length]), payload]);
  socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), frame]));
}

it('hears the first words of a desktop that speaks at once', async () => {
  await using server = createServer();
  server.on('upgrade', (request, socket) => {
    // A server leaves what it upgraded half open.
    socket.once('end', () => socket.end()).on('error', () => {});
    answerAtOnce(socket, String(request.headers['sec-websocket-key']), Buffer.from('RFB 003.003\n'));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ticket = {
    ticket: 't',
    expiresAt: '2026-01-01T00:00:00.000Z',
    webSocketPath: '/api/desktop?ticket=t',
  };
  const nobody = () => Promise.reject(new Error('not asked for'));
  const api: Api = {
    url,
    publicUrl: url,
    request: async (_method, _route, schema) => schema.parse(ticket),
    text: nobody,
    bytes: nobody,
    async *timeline() {},
  };
  const signing = signInOnDesktop(api, newSessionId(), {
    provider: 'codex',
    person: { email: 'ada@example.test', password: 'not used', consent: 'allow' },
    signal: AbortSignal.timeout(4_000),
    onStep: () => {},
  });
  await expect(signing).rejects.toThrow('does not speak RFB 3.8');
});
