import { connect, type Socket } from 'node:net';

/** Reads an exact number of bytes at a time from a socket. */
class Bytes {
  readonly #socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #ended: Error | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
      this.#wake?.();
    });
    const end = (error?: Error) => {
      this.#ended ??= error ?? new Error('the X server closed the connection');
      this.#wake?.();
    };
    socket.on('error', end);
    socket.on('close', () => end());
  }

  async take(count: number): Promise<Buffer> {
    while (this.#buffer.length < count) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    const taken = this.#buffer.subarray(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return taken;
  }

  write(bytes: Buffer): void {
    this.#socket.write(bytes);
  }
}

export interface Area {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Settles when `painted` says so of the pixels of `area` (4 bytes each: blue, green, red, unused), which it sees now
 * and after every change. It asks the X server for incremental updates, as a viewer does, so nothing is polled and what
 * counts as painted is what a person would see. Rejects when the connection ends or `signal` aborts.
 */
export async function waitForPixels(
  socketPath: string,
  area: Area,
  painted: (pixels: Buffer) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const socket = connect({ path: socketPath });
  const abort = () => socket.destroy(new Error('aborted'));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    const bytes = new Bytes(socket);
    await handshake(bytes);
    const pixels = Buffer.alloc(area.width * area.height * 4);
    for (let incremental = 0; ; incremental = 1) {
      bytes.write(updateRequest(area, incremental));
      if ((await readUpdate(bytes, area, pixels)) && painted(pixels)) return;
    }
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

/** RFC 6143, version 3.8 without security, shared; then 32-bit pixels and raw rectangles. */
async function handshake(bytes: Bytes): Promise<void> {
  await bytes.take(12);
  bytes.write(Buffer.from('RFB 003.008\n'));
  const types = await bytes.take((await bytes.take(1)).readUInt8(0));
  if (!types.includes(1)) throw new Error('the X server asks for a password');
  bytes.write(Buffer.from([1]));
  if ((await bytes.take(4)).readUInt32BE(0) !== 0) throw new Error('the X server refused the viewer');
  bytes.write(Buffer.from([1]));
  const init = await bytes.take(24);
  await bytes.take(init.readUInt32BE(20));
  bytes.write(Buffer.from([0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]));
  bytes.write(Buffer.from([2, 0, 0, 1, 0, 0, 0, 0]));
}

function updateRequest(area: Area, incremental: number): Buffer {
  const request = Buffer.alloc(10);
  request.writeUInt8(3, 0);
  request.writeUInt8(incremental, 1);
  request.writeUInt16BE(area.x, 2);
  request.writeUInt16BE(area.y, 4);
  request.writeUInt16BE(area.width, 6);
  request.writeUInt16BE(area.height, 8);
  return request;
}

/** Reads one message of the server into `pixels`; true when it was an update of the screen. */
async function readUpdate(bytes: Bytes, area: Area, pixels: Buffer): Promise<boolean> {
  const type = (await bytes.take(1)).readUInt8(0);
  if (type === 2) return false;
  if (type === 3) {
    const length = (await bytes.take(7)).readUInt32BE(3);
    await bytes.take(length);
    return false;
  }
  if (type === 1) {
    const colours = (await bytes.take(5)).readUInt16BE(3);
    await bytes.take(colours * 6);
    return false;
  }
  if (type !== 0) throw new Error(`the X server sent message ${type}`);
  const rectangles = (await bytes.take(3)).readUInt16BE(1);
  for (let index = 0; index < rectangles; index += 1) {
    const header = await bytes.take(12);
    const x = header.readUInt16BE(0);
    const y = header.readUInt16BE(2);
    const width = header.readUInt16BE(4);
    const height = header.readUInt16BE(6);
    const rows = await bytes.take(width * height * 4);
    for (let row = 0; row < height; row += 1) {
      const target = ((y - area.y + row) * area.width + (x - area.x)) * 4;
      if (target < 0 || target + width * 4 > pixels.length) continue;
      rows.copy(pixels, target, row * width * 4, (row + 1) * width * 4);
    }
  }
  return true;
}
