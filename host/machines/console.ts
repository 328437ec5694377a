/**
 * A machine's console: a named pipe the guest writes into and we read, so that what it prints is kept from the first
 * byte, survives a restart of the host service, and can never fill the host's disk.
 */
import { chownSync, closeSync, constants, openSync } from 'node:fs';
import { appendFile, readFile, rename, rm, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { makeFifo } from '../system/syscalls.ts';

const HEAD_BYTES = 128 * 1024;
const TAIL_BYTES = 512 * 1024;
/** At most this much is taken per tick; a guest that prints more waits, instead of costing us a core. */
const BYTES_PER_TICK = 1024 * 1024;
const TICK_MS = 100;

/** The files in the order in which they continue each other. */
const FILES = ['console.log', 'console.older.log', 'console.newer.log'] as const;

const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => undefined))?.size ?? 0;

/** Is told each line that the guest prints, until it says that it has seen enough. */
export type LineWatch = (line: string, at: Date) => 'more' | 'enough';

/** A line is not waited for longer than this; what comes after is the next one. */
const LINE_CHARS = 1024;

/** What is kept of a console in `folder`, as one text with a mark where something was dropped. */
export async function readConsole(folder: string): Promise<string> {
  const read = (name: string): Promise<string> => readFile(join(folder, name), 'utf8').catch(() => '');
  const [head, older, newer] = await Promise.all(FILES.map(read));
  const gap = older === '' ? '' : '\n[... lines may be missing here ...]\n';
  return `${head}${gap}${older}${newer}`;
}

export class Console {
  readonly #folder: string;
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  #writes: Promise<void> = Promise.resolve();
  #headBytes: number;
  #tailBytes: number;
  #budget = BYTES_PER_TICK;
  #tick: NodeJS.Timeout | undefined;
  #watch: LineWatch | undefined;
  #line = '';

  private constructor(
    folder: string,
    fifo: string,
    kept: { headBytes: number; tailBytes: number },
    watch: LineWatch | undefined,
  ) {
    const { headBytes, tailBytes } = kept;
    this.#folder = folder;
    this.#watch = watch;
    this.#headBytes = headBytes;
    this.#tailBytes = tailBytes;
    const descriptor = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#socket = new Socket({ fd: descriptor, readable: true, writable: false });
    this.#closed = new Promise((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.on('error', () => undefined);
    this.#socket.on('data', (bytes) => this.#take(bytes));
  }

  /** Starts reading the pipe at `fifo` (made if it is not there) into files in `folder`; `watch` sees every line. */
  static async open(folder: string, fifo: string, owner: number, watch?: LineWatch): Promise<Console> {
    makeFifo(fifo, 0o600);
    chownSync(fifo, owner, owner);
    const [head = 0, , newer = 0] = await Promise.all(FILES.map((name) => sizeOf(join(folder, name))));
    return new Console(folder, fifo, { headBytes: head, tailBytes: newer }, watch);
  }

  /** The guest's end. Open for both ways, so that writing never fails while no host service reads. The caller closes it. */
  static guestEnd(fifo: string): number {
    return openSync(fifo, constants.O_RDWR);
  }

  static closeGuestEnd(descriptor: number): void {
    closeSync(descriptor);
  }

  /** Words come in pieces: the unfinished last line is remembered. */
  #look(bytes: Buffer): void {
    if (this.#watch === undefined) return;
    const at = new Date();
    const lines = (this.#line + bytes.toString('latin1')).split('\n');
    this.#line = (lines.pop() ?? '').slice(-LINE_CHARS);
    for (const line of lines) {
      if (this.#watch(line.slice(0, LINE_CHARS), at) === 'more') continue;
      this.#watch = undefined;
      this.#line = '';
      return;
    }
  }

  #take(bytes: Buffer): void {
    this.#look(bytes);
    this.#writes = this.#writes.then(() => this.#keep(bytes)).catch(() => undefined);
    this.#budget -= bytes.length;
    if (this.#budget > 0 || this.#tick !== undefined) return;
    this.#socket.pause();
    this.#tick = setTimeout(() => {
      this.#tick = undefined;
      this.#budget = BYTES_PER_TICK;
      this.#socket.resume();
    }, TICK_MS);
  }

  async #keep(bytes: Buffer): Promise<void> {
    const [headFile, olderFile, newerFile] = FILES.map((name) => join(this.#folder, name)) as [
      string,
      string,
      string,
    ];
    const head = bytes.subarray(0, Math.max(0, HEAD_BYTES - this.#headBytes));
    if (head.length > 0) {
      await appendFile(headFile, head, { mode: 0o600 });
      this.#headBytes += head.length;
    }
    const tail = bytes.subarray(head.length);
    if (tail.length === 0) return;
    if (this.#tailBytes >= TAIL_BYTES) {
      await rename(newerFile, olderFile);
      this.#tailBytes = 0;
    }
    await appendFile(newerFile, tail, { mode: 0o600 });
    this.#tailBytes += tail.length;
  }

  /** Waits until everything read so far is in the files. */
  async flush(): Promise<void> {
    await this.#writes;
  }

  /** Reads what is left once the guest is gone, and ends. */
  async close(): Promise<void> {
    // The pipe ends by itself when its last writer is gone; a writer that stays must not keep us.
    const timer = setTimeout(() => this.#socket.destroy(), 500);
    await this.#closed;
    clearTimeout(timer);
    clearTimeout(this.#tick);
    await this.#writes;
  }

  /** The last lines of what is kept in `folder`. */
  static async lastLines(folder: string, count: number): Promise<string[]> {
    return (await readConsole(folder)).trimEnd().split('\n').slice(-count);
  }

  /** A console of an earlier run of the same machine is not mixed with the next one. */
  static async forget(folder: string): Promise<void> {
    await Promise.all(FILES.map((name) => rm(join(folder, name), { force: true })));
  }
}
