import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { newMachineId } from '../../protocol/ids.ts';
import type { MachineManager } from '../machines/manager.ts';
import { handleDial } from './dial.ts';

it('lets a connection go whose dial it refused, whatever was sent after it', async () => {
  const machines: Pick<MachineManager, 'dial'> = {
    dial: () => Promise.reject(new PolydevError('machine_unreachable', 'it is gone')),
  };
  const server = createServer();
  const closed = new Promise((resolve) => {
    server.on('upgrade', (request, socket, head) => {
      socket.once('close', resolve);
      void handleDial(machines as MachineManager, request, socket, head);
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  let said = '';
  client.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const path = `/v1/machines/${newMachineId()}/dial?port=8080`;
  client.write(`GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n`);
  await once(client, 'end');
  expect(said).toContain('machine_unreachable');
  expect(said).toContain('Connection: close');
  // As a client does that has not noticed, and sends its next request.
  client.end('GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n');
  await closed;
  await new Promise((resolve) => server.close(resolve));
});
