/** A picture of a machine's desktop: one frame read as a viewer does (RFC 6143), written as PNG. */
import type { Duplex } from 'node:stream';
import { crc32, deflateSync } from 'node:zlib';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentClient } from './agent-client.ts';

/** More than any display that a specification allows. */
const MAX_PIXELS = 3840 * 2160;

/** Takes exact numbers of bytes from a stream. */
async function* exact(stream: Duplex): AsyncGenerator<Buffer, void, number> {
  let held = Buffer.alloc(0);
  let wanted = yield held;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    held = Buffer.concat([held, chunk]);
    while (held.length >= wanted) {
      const taken = held.subarray(0, wanted);
      held = held.subarray(wanted);
      wanted = yield taken;
    }
  }
}

/** @throws machine_unreachable when the desktop does not answer as RFB; the signal's reason */
export async function takeScreenshot(agent: AgentClient, signal: AbortSignal): Promise<Buffer> {
  const stream = await agent.desktop(signal);
  const abort = (): void => void stream.destroy(new Error('aborted'));
  signal.addEventListener('abort', abort, { once: true });
  stream.on('error', () => undefined);
  try {
    const reader = exact(stream);
    await reader.next(0);
    const take = async (count: number): Promise<Buffer> => {
      const { value, done } = await reader.next(count);
      if (done === true || value === undefined) {
        throw new PolydevError('machine_unreachable', 'the desktop closed the connection');
      }
      return value;
    };
    return await readFrame(take, (bytes) => void stream.write(bytes));
  } finally {
    signal.removeEventListener('abort', abort);
    stream.destroy();
  }
}

async function readFrame(
  take: (count: number) => Promise<Buffer>,
  write: (bytes: Buffer) => void,
): Promise<Buffer> {
  const refused = (why: string) => new PolydevError('machine_unreachable', `the desktop: ${why}`);
  await take(12);
  write(Buffer.from('RFB 003.008\n'));
  const types = await take((await take(1)).readUInt8(0));
  if (!types.includes(1)) throw refused('it asks for a password');
  write(Buffer.from([1]));
  if ((await take(4)).readUInt32BE(0) !== 0) throw refused('it refused the viewer');
  write(Buffer.from([1]));
  const init = await take(24);
  const [width, height] = [init.readUInt16BE(0), init.readUInt16BE(2)];
  await take(init.readUInt32BE(20));
  if (width * height === 0 || width * height > MAX_PIXELS) throw refused(`${width} x ${height} pixels`);
  // 32-bit true colour, little endian: blue, green, red, unused. Then raw rectangles only, and the whole screen.
  write(Buffer.from([0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]));
  write(Buffer.from([2, 0, 0, 1, 0, 0, 0, 0]));
  const request = Buffer.from([3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  request.writeUInt16BE(width, 6);
  request.writeUInt16BE(height, 8);
  write(request);
  const pixels = Buffer.alloc(width * height * 4);
  for (;;) {
    const type = (await take(1)).readUInt8(0);
    if (type === 1) await take((await take(5)).readUInt16BE(3) * 6);
    else if (type === 3) await take((await take(7)).readUInt32BE(3));
    else if (type === 0) break;
    else if (type !== 2) throw refused(`message ${type}`);
  }
  for (let left = (await take(3)).readUInt16BE(1); left > 0; left--) {
    const header = await take(12);
    const [x, y] = [header.readUInt16BE(0), header.readUInt16BE(2)];
    const [columns, rows] = [header.readUInt16BE(4), header.readUInt16BE(6)];
    if (x + columns > width || y + rows > height) throw refused('a rectangle outside of the screen');
    for (let row = 0; row < rows; row++) (await take(columns * 4)).copy(pixels, ((y + row) * width + x) * 4);
  }
  return encodePng(width, height, pixels);
}

/** @param pixels 4 bytes each: blue, green, red, unused */
export function encodePng(width: number, height: number, pixels: Buffer): Buffer {
  const rows = Buffer.alloc(height * (1 + width * 3));
  for (let y = 0, out = 0; y < height; y++) {
    out += 1; // filter: none
    for (let x = 0; x < width; x++, out += 3) {
      const at = (y * width + x) * 4;
      rows[out] = pixels[at + 2] ?? 0;
      rows[out + 1] = pixels[at + 1] ?? 0;
      rows[out + 2] = pixels[at] ?? 0;
    }
  }
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}
