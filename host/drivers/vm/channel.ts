/** The channel to a guest that has no sockets to its host: streams over a serial port, which the hypervisor keeps as a unix socket. */
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Multiplexer } from '../../../protocol/channel/multiplexer.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import type { Channel } from './machine.ts';

/** Times the driver's slowdown. */
const DIAL_TIMEOUT_MS = 5000;
const RETRY_MS = 200;

export class GuestChannel implements Channel {
  readonly #path: string;
  #mark: Buffer;
  readonly #dialMs: number;
  readonly #stop = new AbortController();
  #multiplexer: Multiplexer | undefined;

  /** Connects to the socket at `path` and stays connected until disposed of. `mark`: see protocol/channel/; `slowdown`: the driver's. */
  constructor(path: string, mark: string, slowdown: number) {
    this.#path = path;
    this.#dialMs = DIAL_TIMEOUT_MS * slowdown;
    this.#mark = Buffer.from(mark, 'hex');
    void this.#stay();
  }

  async #stay(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const socket = createConnection({ path: this.#path, allowHalfOpen: true });
      const multiplexer = new Multiplexer({ pipe: { input: socket, output: socket }, mark: this.#mark });
      this.#multiplexer = multiplexer;
      const onAbort = (): void => multiplexer.close();
      signal.addEventListener('abort', onAbort, { once: true });
      await multiplexer.closed;
      signal.removeEventListener('abort', onAbort);
      await sleep(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Another mark, which the guest has already; streams go on. */
  remark(mark: string): void {
    this.#mark = Buffer.from(mark, 'hex');
    this.#multiplexer?.remark(this.#mark);
  }

  /** A stream to a port of the guest; waits a little for a guest that boots. Throws `machine_unreachable`. */
  async dial(port: number, signal: AbortSignal): Promise<Duplex> {
    const late = AbortSignal.timeout(this.#dialMs);
    try {
      const multiplexer = this.#multiplexer;
      if (multiplexer === undefined || this.#stop.signal.aborted) throw new Error('it is closed');
      return await multiplexer.open(port, AbortSignal.any([signal, late]));
    } catch (error) {
      const why = late.aborted ? `no answer after ${this.#dialMs} ms` : (error as Error).message;
      throw new PolydevError('machine_unreachable', `channel to the guest: ${why}`, { cause: error });
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
