/** One stream of a multiplexer, as a Duplex with flow control of its own: a slow reader stops only its own writer. */
import { Duplex } from 'node:stream';
import { FRAME, type FrameType, MAX_PAYLOAD, WINDOW } from './frames.ts';

/** What a stream needs of its multiplexer. */
export interface StreamLink {
  /** Sends a frame. False: send no more data until `pump` is called. */
  send(type: FrameType, stream: number, payload?: Buffer): boolean;
  readonly congested: boolean;
  forget(stream: number): void;
}

/** Grants are sent in pieces of this size at least. */
const GRANT_BYTES = WINDOW / 4;
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

export class ChannelStream extends Duplex {
  readonly number: number;
  readonly #link: StreamLink;
  /** Bytes we may still send. */
  #credit = WINDOW;
  /** Bytes the other side may still send. */
  #granted = WINDOW;
  /** Bytes received and not granted again. */
  #owed = 0;
  #pending: Buffer | undefined;
  #written: ((error?: Error | null) => void) | undefined;
  #ended = false;
  #endReceived = false;
  #silent = false;

  constructor(number: number, link: StreamLink) {
    super({ allowHalfOpen: true, readableHighWaterMark: GRANT_BYTES, writableHighWaterMark: MAX_PAYLOAD });
    this.number = number;
    this.#link = link;
    // A stream that breaks while nobody listens must not end the process; its user sees `close`.
    this.on('error', () => undefined);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#pending = chunk;
    this.#written = done;
    this.pump();
  }

  /** Sends what may be sent now. */
  pump(): void {
    while (this.#pending !== undefined && this.#credit > 0 && !this.#link.congested) {
      const chunk = this.#pending;
      const size = Math.min(chunk.length, this.#credit, MAX_PAYLOAD);
      // First the books, then the frame: its answer may come before send() returns.
      this.#credit -= size;
      const whole = size === chunk.length;
      this.#pending = whole ? undefined : chunk.subarray(size);
      this.#link.send(FRAME.data, this.number, chunk.subarray(0, size));
      if (!whole) continue;
      const done = this.#written;
      this.#written = undefined;
      done?.();
    }
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#ended = true;
    this.#link.send(FRAME.end, this.number);
    done();
  }

  override _read(): void {
    if (this.#owed < GRANT_BYTES || this.#endReceived) return;
    const bytes = this.#owed;
    // First the books, then the frame: its answer may come before send() returns.
    this.#owed = 0;
    this.#granted += bytes;
    this.#link.send(FRAME.grant, this.number, u32(bytes));
  }

  /** Data from the other side; throws when it sends more than it may. */
  receive(data: Buffer): void {
    if (this.#endReceived || data.length > this.#granted) throw new Error('data beyond what was granted');
    this.#granted -= data.length;
    this.#owed += data.length;
    // A copy: the chunk it is cut from is much larger and would be kept alive by a slow reader.
    this.push(Buffer.from(data));
  }

  receiveEnd(): void {
    if (this.#endReceived) return;
    this.#endReceived = true;
    this.push(null);
  }

  receiveGrant(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit > WINDOW) throw new Error('granted more than the window');
    this.pump();
  }

  /** The other side, or the whole channel, is gone: nothing is sent about it any more. */
  break(error: Error): void {
    this.#silent = true;
    this.destroy(error);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const whole = this.#ended && this.#endReceived;
    if (!this.#silent && !whole) {
      this.#link.send(FRAME.reset, this.number, Buffer.from((error?.message ?? '').slice(0, 500)));
    }
    this.#link.forget(this.number);
    this.#pending = undefined;
    const written = this.#written;
    this.#written = undefined;
    written?.(error ?? new Error('closed'));
    done(error);
  }
}
