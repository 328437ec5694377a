/** Many streams over one pipe; see frames.ts. The host opens streams, the guest accepts them; both treat input as hostile. */
import { randomBytes } from 'node:crypto';
import type { Duplex, Readable, Writable } from 'node:stream';
import {
  decodeFrame,
  encodeFrame,
  FRAME,
  type Frame,
  type FrameType,
  MARK_BYTES,
  MAX_STREAMS,
  NONCE_BYTES,
} from './frames.ts';
import { ChannelStream, type StreamLink } from './stream.ts';

/** A peer that reads nothing while it makes us answer is given up at this many bytes. */
const MAX_BACKLOG = 8 * 1024 * 1024;
const NEW_START = Buffer.alloc(NONCE_BYTES);
const NOTHING = Buffer.alloc(0);

export interface Pipe {
  input: Readable;
  output: Writable;
}

export interface MultiplexerOptions {
  pipe: Pipe;
  /** 16 bytes, the same on both sides, of this start of this machine only. */
  mark: Buffer;
  /** The guest's side: who takes streams for a port, if anybody. Without it this is the host's side. */
  accept?: (port: number) => ((stream: Duplex) => void) | undefined;
}

interface Opening {
  stream: ChannelStream;
  settle: (error?: Error) => void;
}

function markOf(mark: Buffer): Buffer {
  if (mark.length !== MARK_BYTES) throw new Error(`a mark has ${MARK_BYTES} bytes`);
  return mark;
}

export class Multiplexer {
  /** Resolves when the pipe has ended or was given up. Never rejects. */
  readonly closed: Promise<void>;
  readonly #options: MultiplexerOptions;
  readonly #link: StreamLink;
  #mark: Buffer;
  readonly #streams = new Map<number, ChannelStream>();
  readonly #openings = new Map<number, Opening>();
  readonly #closed = Promise.withResolvers<void>();
  #next = 1;
  #nonce: Buffer = NEW_START;
  #synced = Promise.withResolvers<void>();
  #inSync = false;
  #congested = false;
  #over = false;
  /** The end of what came, in which the mark may have begun. */
  #tail: Buffer = NOTHING;
  /** The nonce that follows a mark, as far as it came. */
  #greeting: Buffer | undefined;
  /** An incomplete frame. */
  #rest: Buffer = NOTHING;

  constructor(options: MultiplexerOptions) {
    this.#options = options;
    this.#mark = markOf(options.mark);
    this.closed = this.#closed.promise;
    const self = this;
    this.#link = {
      send: (type, stream, payload) => self.#send(type, stream, payload),
      forget: (stream) => {
        self.#streams.delete(stream);
        self.#openings.get(stream)?.settle(new Error('closed'));
      },
      get congested() {
        return self.#congested;
      },
    };
    const { input, output } = options.pipe;
    input.on('data', (chunk: Buffer) => this.#take(chunk));
    for (const end of [input, output]) {
      end.on('error', (error) => this.close(error));
      end.once('close', () => this.close());
    }
    input.once('end', () => this.close());
    output.on('drain', () => {
      this.#congested = false;
      for (const stream of [...this.#streams.values()]) stream.pump();
    });
    this.#greet();
  }

  get #isHost(): boolean {
    return this.#options.accept === undefined;
  }

  /** Another mark from the next greeting on; for both sides, while they are in sync. */
  remark(mark: Buffer): void {
    this.#mark = markOf(mark);
  }

  /** Whether both sides have found each other. */
  get ready(): boolean {
    return this.#inSync;
  }

  /** Opens a stream to a port of the guest, waiting for the guest. The host's side only. Throws Error. */
  async open(port: number, signal: AbortSignal): Promise<Duplex> {
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => undefined);
    const onAbort = (): void =>
      aborted.reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      while (!this.#inSync) {
        if (this.#over) throw new Error('the channel is closed');
        await Promise.race([this.#synced.promise, aborted.promise]);
      }
      if (this.#streams.size >= MAX_STREAMS) throw new Error(`${MAX_STREAMS} streams are open`);
      const number = this.#next++;
      const stream = new ChannelStream(number, this.#link);
      this.#streams.set(number, stream);
      const opened = new Promise<void>((resolve, reject) => {
        const settle = (error?: Error): void => {
          this.#openings.delete(number);
          if (error === undefined) resolve();
          else reject(error);
        };
        this.#openings.set(number, { stream, settle });
      });
      opened.catch(() => undefined);
      const payload = Buffer.alloc(2);
      payload.writeUInt16BE(port);
      this.#send(FRAME.open, number, payload);
      try {
        await Promise.race([opened, aborted.promise]);
      } catch (error) {
        stream.destroy();
        throw error;
      }
      return stream;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Ends all streams and gives the pipe up. Idempotent. */
  close(error: Error = new Error('the channel is closed')): void {
    if (this.#over) return;
    this.#over = true;
    this.#lose(error);
    this.#synced.resolve(); // whoever waits looks again
    this.#options.pipe.input.destroy();
    this.#options.pipe.output.destroy();
    this.#closed.resolve();
  }

  #write(bytes: Buffer): boolean {
    const { output } = this.#options.pipe;
    if (this.#over || output.destroyed) return false;
    const more = output.write(bytes);
    if (!more) this.#congested = true;
    if (output.writableLength > MAX_BACKLOG) this.close(new Error('the other side does not read'));
    return more;
  }

  #send(type: FrameType, stream: number, payload: Buffer = NOTHING): boolean {
    return this.#inSync && this.#write(encodeFrame({ type, stream, payload }));
  }

  /** Says where our stream begins: a new nonce by the host, the wish for one by the guest. */
  #greet(): void {
    this.#nonce = this.#isHost ? randomBytes(NONCE_BYTES) : NEW_START;
    this.#write(Buffer.concat([this.#mark, this.#nonce]));
  }

  /** Both sides are no longer at the same place: every stream breaks. */
  #lose(error: Error): void {
    if (this.#inSync) this.#synced = Promise.withResolvers();
    this.#inSync = false;
    this.#rest = NOTHING;
    for (const stream of [...this.#streams.values()]) stream.break(error);
    for (const { settle } of [...this.#openings.values()]) settle(error);
  }

  #take(chunk: Buffer): void {
    let data = chunk;
    while (data.length > 0 && !this.#over) {
      if (this.#greeting !== undefined) {
        const part = data.subarray(0, NONCE_BYTES - this.#greeting.length);
        data = data.subarray(part.length);
        this.#greeting = Buffer.concat([this.#greeting, part]);
        if (this.#greeting.length < NONCE_BYTES) return;
        const nonce = this.#greeting;
        this.#greeting = undefined;
        this.#greeted(nonce);
        continue;
      }
      const seen = this.#tail.length === 0 ? data : Buffer.concat([this.#tail, data]);
      const at = seen.indexOf(this.#mark);
      if (at === -1) {
        this.#tail = Buffer.from(seen.subarray(Math.max(0, seen.length - MARK_BYTES + 1)));
        this.#takeFrames(data);
        return;
      }
      this.#tail = NOTHING;
      this.#greeting = NOTHING;
      data = seen.subarray(at + MARK_BYTES);
    }
  }

  #greeted(nonce: Buffer): void {
    if (this.#isHost) {
      if (nonce.equals(NEW_START)) {
        this.#lose(new Error('the guest started its channel anew'));
        this.#greet();
      } else if (nonce.equals(this.#nonce) && !this.#inSync) {
        this.#inSync = true;
        this.#synced.resolve();
      }
      // Any other nonce answers an older greeting.
      return;
    }
    this.#lose(new Error('the host started its channel anew'));
    this.#nonce = nonce;
    this.#write(Buffer.concat([this.#mark, nonce]));
    this.#inSync = true;
    this.#synced.resolve();
  }

  #takeFrames(data: Buffer): void {
    if (!this.#inSync) return;
    let bytes = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    try {
      for (;;) {
        const found = decodeFrame(bytes);
        if (found === undefined) break;
        bytes = bytes.subarray(found.length);
        this.#handle(found.frame);
        if (!this.#inSync) return;
      }
      this.#rest = Buffer.from(bytes);
    } catch (error) {
      this.#lose(error instanceof Error ? error : new Error(String(error)));
      this.#greet();
    }
  }

  #handle({ type, stream: number, payload }: Frame): void {
    if (type === FRAME.open) {
      this.#accept(number, payload);
      return;
    }
    const stream = this.#streams.get(number);
    // It was closed here meanwhile, which the other side has been or will be told.
    if (stream === undefined) return;
    if (type === FRAME.opened) {
      this.#openings.get(number)?.settle();
    } else if (type === FRAME.data) {
      stream.receive(payload);
    } else if (type === FRAME.end) {
      stream.receiveEnd();
    } else if (type === FRAME.grant) {
      if (payload.length !== 4) throw new Error('a grant has 4 bytes');
      stream.receiveGrant(payload.readUInt32BE(0));
    } else {
      const error = new Error(payload.toString('utf8') || 'the other side closed the stream');
      this.#openings.get(number)?.settle(error);
      stream.break(error);
    }
  }

  #accept(number: number, payload: Buffer): void {
    const { accept } = this.#options;
    if (accept === undefined || payload.length !== 2 || this.#streams.has(number)) {
      throw new Error('a stream was opened that cannot be');
    }
    const port = payload.readUInt16BE(0);
    const take = this.#streams.size < MAX_STREAMS ? accept(port) : undefined;
    if (take === undefined) {
      this.#send(FRAME.reset, number, Buffer.from(`no stream to port ${port}`));
      return;
    }
    const stream = new ChannelStream(number, this.#link);
    this.#streams.set(number, stream);
    this.#send(FRAME.opened, number);
    take(stream);
  }
}
