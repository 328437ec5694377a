/** A request to the agent of a machine from its own host: a template's, and a copy's that is told who it is. */
import http from 'node:http';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { PolydevError } from '../../../protocol/errors.ts';
import { AGENT_PORT } from '../../../protocol/machine.ts';
import { parseJson } from '../../system/files.ts';

/** How its host reaches a machine: Machine.dial, or a channel. */
export type Dial = (port: number, signal: AbortSignal) => Promise<Duplex>;

/**
 * One request over a channel of its own; the body of the answer. Throws `machine_unreachable`, or what the agent says when it
 * refuses.
 */
export async function askAgent(
  dial: Dial,
  request: { token: string; path: string; body?: object },
  signal: AbortSignal,
): Promise<string> {
  const { token, path, body } = request;
  const channel = await dial(AGENT_PORT, signal);
  try {
    const reply = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const sent = http.request(
        {
          method: body === undefined ? 'GET' : 'POST',
          path,
          headers: { authorization: `Bearer ${token}`, connection: 'close' },
          createConnection: () => channel,
          signal,
        },
        resolve,
      );
      sent.once('error', reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
    const said = await text(reply);
    if (reply.statusCode === 200) return said;
    throw PolydevError.fromReport(parseJson(said), 'machine_unreachable');
  } catch (error) {
    throw PolydevError.from(error, 'machine_unreachable');
  } finally {
    channel.destroy();
  }
}
