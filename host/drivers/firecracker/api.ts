/** Firecracker's API: HTTP over a unix socket, one call at a time, a deadline on every one. */
import { request } from 'node:http';
import { z } from 'zod';
import { PolydevError } from '../../../protocol/errors.ts';
import { connectInJail } from './jail.ts';

export interface Call {
  method: 'GET' | 'PUT' | 'PATCH';
  path: string;
  body?: object;
}

export interface Reply {
  status: number;
  /** What its body holds as JSON; null without one. */
  body: unknown;
}

const Fault = z.object({ fault_message: z.string() });

export const InstanceInfo = z.object({
  id: z.string(),
  state: z.enum(['Not started', 'Running', 'Paused']),
  vmm_version: z.string(),
  app_name: z.string(),
});
export type InstanceInfo = z.infer<typeof InstanceInfo>;

const MAX_REPLY_BYTES = 1024 * 1024;
const TIMEOUT_MS = 10_000;

const failed = (call: Call, why: string, cause?: unknown): PolydevError =>
  new PolydevError('machine_unreachable', `Firecracker: ${call.method} ${call.path}: ${why}`, { cause });

/** Sends one call to the socket at `path` and reads the whole answer. Throws `machine_unreachable`. */
async function send(path: string, call: Call, timeoutMs: number): Promise<Reply> {
  const late = AbortSignal.timeout(timeoutMs);
  const payload = call.body === undefined ? undefined : JSON.stringify(call.body);
  try {
    return await new Promise<Reply>((resolve, reject) => {
      const asked = request(
        {
          createConnection: () => connectInJail(path),
          method: call.method,
          path: call.path,
          headers: {
            Host: 'localhost',
            Accept: 'application/json',
            ...(payload === undefined
              ? {}
              : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(payload) }),
          },
          signal: late,
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            text += chunk;
            if (text.length > MAX_REPLY_BYTES) asked.destroy(new Error('the answer is too long'));
          });
          response.once('error', reject);
          response.once('end', () => {
            try {
              resolve({ status: response.statusCode ?? 0, body: text === '' ? null : JSON.parse(text) });
            } catch (error) {
              reject(error instanceof Error ? error : new Error(String(error)));
            }
          });
        },
      );
      asked.once('error', reject);
      asked.end(payload);
    });
  } catch (error) {
    const why = late.aborted ? `no answer after ${timeoutMs} ms` : (error as Error).message;
    throw failed(call, why, error);
  }
}

/** What an answer means: its body when all went well. Throws `machine_unreachable` with Firecracker's own words. */
export function judge(call: Call, reply: Reply): unknown {
  if (reply.status === 200 || reply.status === 204) return reply.body;
  const fault = Fault.safeParse(reply.body).data?.fault_message;
  throw failed(call, `${reply.status}${fault === undefined ? '' : `: ${fault}`}`);
}

export class FirecrackerApi {
  readonly #path: string;
  readonly #slowdown: number;

  /** `path`: of the socket, as the host sees it. Deadlines are multiplied by `slowdown`. */
  constructor(path: string, slowdown: number) {
    this.#path = path;
    this.#slowdown = slowdown;
  }

  /** Throws `machine_unreachable`. */
  async call(call: Call, timeoutMs = TIMEOUT_MS): Promise<unknown> {
    return judge(call, await send(this.#path, call, timeoutMs * this.#slowdown));
  }

  /** Throws `machine_unreachable`, also for an answer that is none. */
  async describe(): Promise<InstanceInfo> {
    const call: Call = { method: 'GET', path: '/' };
    const parsed = InstanceInfo.safeParse(await this.call(call));
    if (!parsed.success) throw failed(call, 'it does not describe itself', parsed.error);
    return parsed.data;
  }
}
