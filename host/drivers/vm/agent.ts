/** Requests to the agent of a machine from its own host: a template's, and a copy's that is told who it is. */
import http from 'node:http';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { PolydevError } from '../../../protocol/errors.ts';
import { AGENT_PORT } from '../../../protocol/machine.ts';
import { parseJson } from '../../system/files.ts';

/** How its host reaches a machine: Machine.dial, or a channel. */
export type Dial = (port: number, signal: AbortSignal) => Promise<Duplex>;

interface AgentRequest {
  token: string;
  path: string;
  /** Sent as JSON; none: GET. Made when the channel is open: what it says of the time is of that moment. */
  body?: () => object;
}

/** The text of an answer, and what it took from the open channel on. */
interface AgentReply {
  text: string;
  ms: number;
}

/** One request over a channel of its own. Throws `machine_unreachable`, or what the agent says when it refuses. */
export async function askAgent(dial: Dial, request: AgentRequest, signal: AbortSignal): Promise<AgentReply> {
  const { token, path, body } = request;
  const channel = await dial(AGENT_PORT, signal);
  try {
    const began = performance.now();
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
      sent.end(body === undefined ? undefined : JSON.stringify(body()));
    });
    const said = await text(reply);
    if (reply.statusCode === 200) return { text: said, ms: performance.now() - began };
    throw PolydevError.fromReport(parseJson(said), 'machine_unreachable');
  } catch (error) {
    throw PolydevError.from(error, 'machine_unreachable');
  } finally {
    channel.destroy();
  }
}
