/** What can be read from a picture without knowing its page: blocks of one colour, and the picture as a PNG file. */
import { crc32, deflateSync } from 'node:zlib';
import type { Colour } from '../idp/colours.ts';
import type { Screen } from './rfb.ts';

/** A connected area of one colour. `x`,`y` is its pixel nearest to its middle; `area` counts pixels. */
export interface Block {
  x: number;
  y: number;
  area: number;
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** The screen as numbers, R lowest (see rfb.ts), without the unused byte's meaning. */
function words({ pixels }: Screen): Uint32Array {
  return new Uint32Array(pixels.buffer, pixels.byteOffset, pixels.length / 4);
}

const asWord = (colour: Colour) => ((colour & 0xff) << 16) | (colour & 0xff00) | (colour >>> 16);

/** How many pixels have exactly `colour` (0xRRGGBB). */
export function countOf(screen: Screen, colour: Colour): number {
  const wanted = asWord(colour);
  let count = 0;
  for (const word of words(screen)) if ((word & 0xffffff) === wanted) count++;
  return count;
}

/**
 * The largest connected block of exactly `colour` (0xRRGGBB) that has at least `minArea` pixels, or `undefined`.
 * Text drawn on the block does not split it as long as the colour goes around it.
 */
export function largestBlock(screen: Screen, colour: Colour, minArea: number): Block | undefined {
  if (countOf(screen, colour) < minArea) return undefined;
  const { width } = screen;
  const all = words(screen);
  const wanted = asWord(colour);
  const seen = new Uint8Array(all.length);
  // Flood fill. Every block ends up as one stretch of `queue`.
  const queue = new Int32Array(all.length);
  let end = 0;
  const visit = (index: number) => {
    if (seen[index] || ((all[index] ?? 0) & 0xffffff) !== wanted) return;
    seen[index] = 1;
    queue[end++] = index;
  };
  let best = new Int32Array(0);
  for (let start = 0; start < all.length; start++) {
    const first = end;
    visit(start);
    for (let next = first; next < end; next++) {
      const index = queue[next] ?? 0;
      const x = index % width;
      if (x > 0) visit(index - 1);
      if (x + 1 < width) visit(index + 1);
      if (index >= width) visit(index - width);
      if (index + width < all.length) visit(index + width);
    }
    if (end - first > best.length) best = queue.subarray(first, end);
  }
  return best.length >= minArea ? describe(best, width) : undefined;
}

function describe(indexes: Int32Array, width: number): Block {
  const block = { area: indexes.length, left: width, top: Number.MAX_SAFE_INTEGER, right: 0, bottom: 0 };
  let [sumX, sumY] = [0, 0];
  for (const index of indexes) {
    const [x, y] = [index % width, Math.floor(index / width)];
    sumX += x;
    sumY += y;
    block.left = Math.min(block.left, x);
    block.right = Math.max(block.right, x);
    block.top = Math.min(block.top, y);
    block.bottom = Math.max(block.bottom, y);
  }
  const [middleX, middleY] = [sumX / indexes.length, sumY / indexes.length];
  let nearest = { x: 0, y: 0, distance: Number.POSITIVE_INFINITY };
  for (const index of indexes) {
    const [x, y] = [index % width, Math.floor(index / width)];
    const distance = (x - middleX) ** 2 + (y - middleY) ** 2;
    if (distance < nearest.distance) nearest = { x, y, distance };
  }
  return { ...block, x: nearest.x, y: nearest.y };
}

/** The screen as a PNG file (8 bits, RGB). */
export function png(screen: Screen): Buffer {
  const { width, height, pixels } = screen;
  const rows = Buffer.alloc(height * (1 + width * 3));
  let at = 0;
  for (let y = 0; y < height; y++) {
    at++; // filter type 0 of the row
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * 4;
      pixels.copy(rows, at, from, from + 3);
      at += 3;
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32(body), body.length + 4);
  return out;
}
