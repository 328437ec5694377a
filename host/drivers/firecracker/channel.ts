/** The channel to a guest: its virtual socket, which Firecracker keeps as a unix socket on the host (its docs/vsock.md). */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../../protocol/errors.ts';
import type { Channel } from '../vm/machine.ts';
import { connectInJail } from './jail.ts';

const DIAL_TIMEOUT_MS = 5000;
const MAX_ANSWER_BYTES = 32;

/** Reads up to the end of the first line, and gives back what came after it. */
async function firstLine(socket: Socket, signal: AbortSignal): Promise<string> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) {
      if (socket.readableEnded || socket.destroyed) throw new Error('nobody in the guest listens there');
      const stop = new AbortController();
      const either = AbortSignal.any([signal, stop.signal]);
      await Promise.race([
        once(socket, 'readable', { signal: either }),
        once(socket, 'end', { signal: either }),
        once(socket, 'close', { signal: either }),
      ]).finally(() => stop.abort());
      continue;
    }
    bytes = Buffer.concat([bytes, chunk]);
    const end = bytes.indexOf('\n');
    if (end !== -1) {
      if (end + 1 < bytes.length) socket.unshift(bytes.subarray(end + 1));
      return bytes.subarray(0, end).toString('latin1');
    }
    if (bytes.length > MAX_ANSWER_BYTES) throw new Error('the answer is no line');
  }
}

/** Opens a stream to `port` of the guest behind the socket at `path`. Throws Error. */
async function connectGuest(path: string, port: number, signal: AbortSignal): Promise<Duplex> {
  const socket = connectInJail(path);
  try {
    await once(socket, 'connect', { signal });
    socket.write(`CONNECT ${port}\n`);
    const answer = await firstLine(socket, signal);
    if (!/^OK \d+$/.test(answer)) throw new Error(`it answered ${JSON.stringify(answer)}`);
    return socket;
  } catch (error) {
    socket.on('error', () => undefined);
    socket.destroy();
    throw error;
  }
}

export class VsockChannel implements Channel {
  readonly #path: string;
  readonly #slowdown: number;
  readonly #stop = new AbortController();

  /** `path`: of the unix socket, as the host sees it. */
  constructor(path: string, slowdown: number) {
    this.#path = path;
    this.#slowdown = slowdown;
  }

  async dial(port: number, signal: AbortSignal): Promise<Duplex> {
    const timeoutMs = DIAL_TIMEOUT_MS * this.#slowdown;
    const late = AbortSignal.timeout(timeoutMs);
    try {
      return await connectGuest(this.#path, port, AbortSignal.any([signal, late, this.#stop.signal]));
    } catch (error) {
      const why = late.aborted ? `no answer after ${timeoutMs} ms` : (error as Error).message;
      throw new PolydevError('machine_unreachable', `channel to the guest: ${why}`, { cause: error });
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
