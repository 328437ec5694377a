import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { countOf, largestBlock, png } from './picture.ts';
import type { Screen } from './rfb.ts';

const BLUE = 0x2460c6;
const BLACK = 0x000000;

/** A screen painted with rectangles `[colour, left, top, width, height]`. */
function screen(
  width: number,
  height: number,
  ...rectangles: [number, number, number, number, number][]
): Screen {
  const pixels = Buffer.alloc(width * height * 4);
  for (const [colour, left, top, w, h] of rectangles) {
    for (let y = top; y < top + h; y++) {
      for (let x = left; x < left + w; x++)
        pixels.writeUInt32BE(((colour << 8) | 0x7f) >>> 0, (y * width + x) * 4);
    }
  }
  return { width, height, pixels };
}

describe('largestBlock', () => {
  it('finds the middle of a block', () => {
    const block = largestBlock(screen(40, 30, [BLUE, 10, 5, 21, 11]), BLUE, 100);
    expect(block).toEqual({ x: 20, y: 10, area: 231, left: 10, top: 5, right: 30, bottom: 15 });
  });

  it('takes the largest, and counts what does not touch apart', () => {
    const two = screen(40, 30, [BLUE, 0, 0, 5, 5], [BLUE, 10, 10, 9, 9], [BLUE, 5, 5, 2, 2]);
    expect(largestBlock(two, BLUE, 1)).toMatchObject({ x: 14, y: 14, area: 81 });
    expect(countOf(two, BLUE)).toBe(25 + 81 + 4);
  });

  it('does not join the end of a row with the start of the next', () => {
    const edges = screen(20, 4, [BLUE, 18, 1, 2, 1], [BLUE, 0, 2, 2, 1]);
    expect(largestBlock(edges, BLUE, 1)?.area).toBe(2);
  });

  it('gives a pixel of the block even where text covers the middle', () => {
    const button = screen(60, 30, [BLUE, 5, 5, 50, 20], [0xffffff, 20, 10, 20, 10]);
    const block = largestBlock(button, BLUE, 100);
    expect(block?.area).toBe(1000 - 200);
    const at = ((block?.y ?? 0) * 60 + (block?.x ?? 0)) * 4;
    expect([...button.pixels.subarray(at, at + 3)]).toEqual([0x24, 0x60, 0xc6]);
  });

  it('sees nothing in a colour that is almost the same, or in a block that is too small', () => {
    const near = screen(40, 30, [BLUE + 1, 0, 0, 40, 30]);
    expect(largestBlock(near, BLUE, 1)).toBeUndefined();
    expect(largestBlock(screen(40, 30, [BLUE, 0, 0, 9, 11]), BLUE, 100)).toBeUndefined();
  });
});

describe('png', () => {
  it('holds every pixel', () => {
    const file = png(screen(3, 2, [BLUE, 1, 0, 1, 2], [BLACK, 0, 0, 1, 1]));
    expect(file.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n');
    expect([file.readUInt32BE(16), file.readUInt32BE(20), file[24], file[25]]).toEqual([3, 2, 8, 2]);
    const length = file.readUInt32BE(33);
    expect(file.subarray(37, 41).toString('latin1')).toBe('IDAT');
    const row = [0, 0, 0, 0, 0x24, 0x60, 0xc6, 0, 0, 0];
    expect([...inflateSync(file.subarray(41, 41 + length))]).toEqual([...row, ...row]);
  });
});
