/**
 * A small RFB (VNC) 3.8 client over any byte stream: what a person has of a remote desktop, its pixels, keys and pointer.
 * Wire format: RFC 6143. Security type None only; raw and copy-rectangle encodings, so every pixel is exact.
 */
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../protocol/errors.ts';
import { ByteReader } from './bytes.ts';

const ENCODING = { raw: 0, copyRect: 1, desktopSize: -223 } as const;
const HANDSHAKE_MS = 15_000;
/** No desktop is larger; a size above is a broken stream, not a screen to allocate. */
const MAX_SIDE = 8_192;

/** How long something may take, and what may call it off. */
export interface Wait {
  /** Milliseconds from now. */
  deadlineMs: number;
  signal?: AbortSignal;
}

/** The screen as last received: 4 bytes a pixel, R G B and one unused, rows without gaps. */
export interface Screen {
  readonly width: number;
  readonly height: number;
  readonly pixels: Buffer;
}

/** A connected viewer. It keeps {@link screen} up to date by itself until it is closed. */
export class RfbClient implements Disposable {
  readonly #stream: Duplex;
  readonly #reader: ByteReader;
  readonly #watchers = new Set<() => void>();
  #screen: Screen;
  #ended: PolydevError | undefined;
  #updates = 0;
  #buttons = 0;

  private constructor(stream: Duplex, reader: ByteReader, width: number, height: number) {
    this.#stream = stream;
    this.#reader = reader;
    this.#screen = { width, height, pixels: blank(width, height) };
  }

  /**
   * Shakes hands (shared session) and waits for the first whole picture. Ends `stream` when that fails.
   *
   * @throws PolydevError `desktop_failed` when the server wants another version or a password, closes, or is silent for
   *   `deadlineMs` (default 15 s); the signal's reason.
   */
  static async connect(stream: Duplex, wait: Partial<Wait> = {}): Promise<RfbClient> {
    const { deadlineMs = HANDSHAKE_MS, signal } = wait;
    const due = Date.now() + deadlineMs;
    const stop = () => stream.destroy();
    const clock = setTimeout(stop, deadlineMs);
    signal?.addEventListener('abort', stop, { once: true });
    // The reader sees every failure; without a listener one between two reads would end the process.
    stream.on('error', () => {});
    try {
      signal?.throwIfAborted();
      const reader = new ByteReader(stream);
      const { width, height } = await handshake(stream, reader);
      const client = new RfbClient(stream, reader, width, height);
      void client.#run();
      await client.#until(
        () => client.#updates > 0,
        'the first picture',
        withSignal(due - Date.now(), signal),
      );
      return client;
    } catch (error) {
      stream.destroy();
      signal?.throwIfAborted();
      if (Date.now() >= due) throw failed(`the desktop did not answer within ${deadlineMs} ms`, error);
      throw PolydevError.from(error, 'desktop_failed');
    } finally {
      clearTimeout(clock);
      signal?.removeEventListener('abort', stop);
    }
  }

  /** The picture now. A later update writes into the same buffer, unless the desktop changed its size. */
  get screen(): Screen {
    return this.#screen;
  }

  /** How many updates have arrived; grows with every change of the picture. */
  get updates(): number {
    return this.#updates;
  }

  /**
   * Resolves with what `look` returns as soon as that is not `undefined`; it looks now and after every update.
   *
   * @throws PolydevError `desktop_failed` when the deadline passes (naming `what`) or the connection ends; the signal's reason.
   */
  async waitFor<T>(look: (screen: Screen) => T | undefined, what: string, wait: Wait): Promise<T> {
    let found: T | undefined;
    await this.#until(
      () => {
        found = look(this.#screen);
        return found !== undefined;
      },
      what,
      wait,
    );
    return found as T;
  }

  /** Resolves true at the next update, false when none comes within `ms`. Rejects like {@link waitFor} otherwise. */
  async changedWithin(ms: number, signal?: AbortSignal): Promise<boolean> {
    const before = this.#updates;
    const due = Date.now() + ms;
    await this.#until(
      () => this.#updates > before || Date.now() >= due,
      'a change',
      withSignal(ms + 1_000, signal),
      ms,
    );
    return this.#updates > before;
  }

  #until(done: () => boolean, what: string, wait: Wait, lookAgainMs?: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (end: () => void) => {
        this.#watchers.delete(check);
        clearTimeout(clock);
        clearTimeout(again);
        wait.signal?.removeEventListener('abort', onAbort);
        end();
      };
      const check = () => {
        try {
          if (done()) settle(resolve);
          else if (this.#ended) settle(() => reject(this.#ended));
        } catch (error) {
          settle(() => reject(error));
        }
      };
      const onAbort = () => settle(() => reject(wait.signal?.reason));
      const late = () => settle(() => reject(failed(`waited ${wait.deadlineMs} ms in vain for ${what}`)));
      const clock = setTimeout(late, Math.max(0, wait.deadlineMs));
      const again = lookAgainMs === undefined ? undefined : setTimeout(check, lookAgainMs);
      wait.signal?.addEventListener('abort', onAbort, { once: true });
      this.#watchers.add(check);
      if (wait.signal?.aborted) onAbort();
      else check();
    });
  }

  /** Moves the pointer, buttons as they are held. Coordinates in pixels from the top left. */
  movePointer(x: number, y: number): void {
    const { width, height } = this.#screen;
    const message = Buffer.alloc(6);
    message.writeUInt8(5, 0);
    message.writeUInt8(this.#buttons, 1);
    message.writeUInt16BE(Math.max(0, Math.min(width - 1, Math.round(x))), 2);
    message.writeUInt16BE(Math.max(0, Math.min(height - 1, Math.round(y))), 4);
    this.#send(message);
  }

  /** Holds or lets go the left button at a place. */
  leftButton(down: boolean, x: number, y: number): void {
    this.#buttons = down ? 1 : 0;
    this.movePointer(x, y);
  }

  /** Presses or releases a key, named by its X11 keysym. */
  key(keysym: number, down: boolean): void {
    const message = Buffer.alloc(8);
    message.writeUInt8(4, 0);
    message.writeUInt8(down ? 1 : 0, 1);
    message.writeUInt32BE(keysym, 4);
    this.#send(message);
  }

  /** Ends the connection; whoever still waits is told. */
  [Symbol.dispose](): void {
    this.#end(failed('the connection to the desktop was closed'));
    this.#stream.destroy();
  }

  #send(message: Buffer): void {
    if (this.#ended) throw this.#ended;
    this.#stream.write(message);
  }

  #end(reason: PolydevError): void {
    this.#ended ??= reason;
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Reads messages until the stream ends. One request is always outstanding, so a change arrives when it happens. */
  async #run(): Promise<void> {
    try {
      this.#request(false);
      while (!this.#ended) await this.#message();
    } catch (error) {
      this.#end(failed('the connection to the desktop broke', error));
      this.#stream.destroy();
    }
  }

  #request(incremental: boolean): void {
    const message = Buffer.alloc(10);
    message.writeUInt8(3, 0);
    message.writeUInt8(incremental ? 1 : 0, 1);
    message.writeUInt16BE(this.#screen.width, 6);
    message.writeUInt16BE(this.#screen.height, 8);
    this.#send(message);
  }

  async #message(): Promise<void> {
    const [type] = await this.#reader.take(1);
    if (type === 0) {
      const resized = await this.#update();
      // After a new size everything must be sent again; only a whole picture counts as seen.
      this.#request(!resized);
      if (resized) return;
      this.#updates++;
      for (const watcher of [...this.#watchers]) watcher();
    } else if (type === 1) {
      const head = await this.#reader.take(5);
      await this.#reader.take(head.readUInt16BE(3) * 6);
    } else if (type === 3) {
      const head = await this.#reader.take(7);
      await this.#reader.take(head.readUInt32BE(3));
    } else if (type !== 2) {
      throw new Error(`message type ${type} was not expected`);
    }
  }

  async #update(): Promise<boolean> {
    const count = (await this.#reader.take(3)).readUInt16BE(1);
    let resized = false;
    for (let i = 0; i < count; i++) {
      const head = await this.#reader.take(12);
      const [x, y, w, h] = [0, 2, 4, 6].map((at) => head.readUInt16BE(at)) as [
        number,
        number,
        number,
        number,
      ];
      const encoding = head.readInt32BE(8);
      if (encoding === ENCODING.desktopSize) {
        checkSize(w, h);
        this.#screen = { width: w, height: h, pixels: blank(w, h) };
        resized = true;
        continue;
      }
      const { width, height } = this.#screen;
      if (x + w > width || y + h > height) throw new Error('a rectangle lies outside the screen');
      if (encoding === ENCODING.raw) this.#paint(await this.#reader.take(w * h * 4), x, y, w, h);
      else if (encoding === ENCODING.copyRect) this.#copy(await this.#reader.take(4), x, y, w, h);
      else throw new Error(`encoding ${encoding} was not asked for`);
    }
    return resized;
  }

  #paint(data: Buffer, x: number, y: number, w: number, h: number): void {
    const { width, pixels } = this.#screen;
    for (let row = 0; row < h; row++) {
      data.copy(pixels, ((y + row) * width + x) * 4, row * w * 4, (row + 1) * w * 4);
    }
  }

  #copy(from: Buffer, x: number, y: number, w: number, h: number): void {
    const { width, height, pixels } = this.#screen;
    const [fromX, fromY] = [from.readUInt16BE(0), from.readUInt16BE(2)];
    if (fromX + w > width || fromY + h > height) throw new Error('a copy comes from outside the screen');
    const rows = Array.from({ length: h }, (_, row) => {
      const start = ((fromY + row) * width + fromX) * 4;
      return Buffer.from(pixels.subarray(start, start + w * 4));
    });
    this.#paint(Buffer.concat(rows), x, y, w, h);
  }
}

async function handshake(stream: Duplex, reader: ByteReader): Promise<{ width: number; height: number }> {
  const version = (await reader.take(12)).toString('latin1');
  if (!/^RFB 003\.00[89]\n$/.test(version)) throw failed('the desktop does not speak RFB 3.8');
  stream.write('RFB 003.008\n');
  const [count = 0] = await reader.take(1);
  if (count === 0) throw failed('the desktop refused the connection', await reason(reader));
  if (!(await reader.take(count)).includes(1)) throw failed('the desktop asks for a password');
  stream.write(Buffer.from([1]));
  if ((await reader.take(4)).readUInt32BE(0) !== 0) throw failed('the desktop refused', await reason(reader));
  stream.write(Buffer.from([1]));
  const init = await reader.take(24);
  await reader.take(init.readUInt32BE(20));
  const [width, height] = [init.readUInt16BE(0), init.readUInt16BE(2)];
  checkSize(width, height);
  // 32 bits, depth 24, little endian, true colour; red lowest, so that memory holds R G B x.
  const format = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];
  stream.write(Buffer.from(format));
  const encodings = Object.values(ENCODING);
  const message = Buffer.alloc(4 + 4 * encodings.length);
  message.writeUInt8(2, 0);
  message.writeUInt16BE(encodings.length, 2);
  for (const [i, encoding] of encodings.entries()) message.writeInt32BE(encoding, 4 + 4 * i);
  stream.write(message);
  return { width, height };
}

async function reason(reader: ByteReader): Promise<Error> {
  const length = (await reader.take(4)).readUInt32BE(0);
  return new Error((await reader.take(Math.min(length, 1_000))).toString('utf8'));
}

function checkSize(width: number, height: number): void {
  if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) {
    throw failed(`the desktop says it is ${width}x${height} pixels`);
  }
}

const blank = (width: number, height: number) => Buffer.alloc(width * height * 4);
const withSignal = (deadlineMs: number, signal?: AbortSignal): Wait => ({
  deadlineMs,
  ...(signal ? { signal } : {}),
});
const failed = (message: string, cause?: unknown) => new PolydevError('desktop_failed', message, { cause });
