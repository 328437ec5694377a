/** The one endpoint that is no request: `Upgrade: tcp` turns a connection into a channel to a guest. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { MachineId } from '../../protocol/ids.ts';
import type { MachineManager } from '../machines/manager.ts';

const PATH = /^\/v1\/machines\/([^/]+)\/dial$/;
const Port = z.coerce.number().int().min(1).max(65_535);

/** Answers an upgrade request on `client`. Never throws. */
export async function handleDial(
  machines: MachineManager,
  request: IncomingMessage,
  client: Duplex,
  head: Buffer,
): Promise<void> {
  const gone = new AbortController();
  const onGone = (): void => gone.abort();
  client.on('error', onGone).once('close', onGone);
  try {
    const url = new URL(request.url ?? '/', 'http://host');
    const id = MachineId.safeParse(PATH.exec(url.pathname)?.[1]);
    const port = Port.safeParse(url.searchParams.get('port'));
    if (!id.success) throw new PolydevError('not_found', 'only /v1/machines/:id/dial upgrades');
    if (!port.success || request.headers.upgrade?.toLowerCase() !== 'tcp') {
      throw new PolydevError('bad_request', 'expected ?port= and the header "Upgrade: tcp"');
    }
    const guest = await machines.dial(id.data, port.data, gone.signal);
    if (gone.signal.aborted) {
      guest.destroy();
      return;
    }
    client.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    if (head.length > 0) guest.write(head);
    join(client, guest);
  } catch (thrown) {
    const error = PolydevError.from(thrown);
    const body = JSON.stringify({ error: error.toReport() });
    client.end(
      `HTTP/1.1 ${error.status} Error\r\nConnection: close\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    // What it still sends is not read by anybody, and would hide its end.
    client.resume();
  }
}

/** Bytes both ways. The end of one direction leaves the other open; a failure or the loss of one side ends both. */
function join(a: Duplex, b: Duplex): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.pipe(to);
    from.on('error', () => to.destroy());
    from.once('close', () => {
      if (!from.readableEnded) to.destroy();
    });
  }
}
