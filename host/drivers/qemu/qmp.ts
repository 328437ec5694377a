/** The hypervisor's control socket (QMP): JSON lines, replies matched by id, a deadline on every call. */
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { PolydevError } from '../../../protocol/errors.ts';

const Message = z.looseObject({
  id: z.number().optional(),
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  QMP: z.unknown().optional(),
});

interface Waiting {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

const failed = (why: string, cause?: unknown): PolydevError =>
  new PolydevError('machine_unreachable', `hypervisor: ${why}`, { cause });

export class Qmp implements Disposable {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #greeting = Promise.withResolvers<unknown>();
  #next = 1;

  private constructor(path: string) {
    this.#greeting.promise.catch(() => undefined);
    this.#socket = createConnection({ path });
    this.#socket.on('error', (error) => this.#end(failed(error.message, error)));
    this.#socket.once('close', () => this.#end(failed('it closed its control socket')));
    const lines = createInterface({ input: this.#socket });
    lines.on('line', (line) => this.#take(line));
    lines.on('error', () => undefined); // the socket's own, heard above
  }

  /** Connects and negotiates. Throws `machine_unreachable`. */
  static async connect(path: string, timeoutMs: number): Promise<Qmp> {
    const qmp = new Qmp(path);
    try {
      await deadline(qmp.#greeting.promise, timeoutMs, 'greeting');
      await qmp.execute('qmp_capabilities', {}, timeoutMs);
      return qmp;
    } catch (error) {
      qmp[Symbol.dispose]();
      throw error;
    }
  }

  #take(line: string): void {
    let message: z.infer<typeof Message>;
    try {
      message = Message.parse(JSON.parse(line));
    } catch {
      return; // not ours to judge; the call that waits for an answer has its deadline
    }
    if (message.QMP !== undefined) this.#greeting.resolve(message.QMP);
    const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id);
    if (waiting === undefined) return; // an event, or an answer that came too late
    if (message.error === undefined) waiting.resolve(message.return);
    else waiting.reject(failed(`${message.error.class}: ${message.error.desc}`));
  }

  #end(error: PolydevError): void {
    this.#greeting.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#socket.destroy();
  }

  /** One command; its `return`. Throws `machine_unreachable`. */
  async execute(command: string, values: object = {}, timeoutMs = 5000): Promise<unknown> {
    if (this.#socket.destroyed) throw failed('its control socket is closed');
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: values, id })}\n`);
    try {
      return await deadline(promise, timeoutMs, command);
    } finally {
      this.#waiting.delete(id);
    }
  }

  [Symbol.dispose](): void {
    this.#end(failed('the control socket was closed'));
  }
}

async function deadline<T>(work: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(failed(`no answer to ${what} after ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
