/**
 * fixtures/: the journal of a genuine guest, out of its disk after its hypervisor was killed, and what its own journalctl made of
 * it a moment before (without the one line that journalctl calls a blob).
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { journalText } from './journal.ts';

const fixture = (name: string): Buffer => readFileSync(path.join(import.meta.dirname, 'fixtures', name));
const file = zstdDecompressSync(fixture('journal.zst'));
const MOST = { entries: 3_000, characters: 512 * 1024 };

describe('the journal of a guest', () => {
  it('reads as journalctl writes it', () => {
    const lines = journalText([file], MOST).split('\n');
    const wanted = fixture('journal.txt').toString('utf8').split('\n');
    expect(wanted.length).toBeGreaterThan(300);
    expect(wanted.filter((line) => !lines.includes(line))).toEqual([]);
  });

  it('shows what is no text as question marks, and continues lines below their beginning', () => {
    const text = journalText([file], MOST);
    expect(text).toMatch(/ person\[\d+\]: lines {8}and a tab\?\n/);
    expect(text).not.toMatch(/[\u0000-\u0008\u000b-\u001f]/);
  });

  it('keeps the end, within its bounds', () => {
    const all = journalText([file], MOST).trimEnd().split('\n');
    const few = journalText([file], { entries: 10, characters: 100_000 }).trimEnd().split('\n');
    expect(few).toEqual(all.slice(-few.length));
    expect(few.length).toBeGreaterThanOrEqual(10);
    expect(journalText([file], { entries: 3_000, characters: 2_000 }).length).toBeLessThanOrEqual(2_000);
  });

  it('takes several files as one, and no file for nothing', () => {
    const once = journalText([file], MOST).length;
    expect(journalText([file, Buffer.alloc(0), file, Buffer.from('LPKSHHRH')], MOST).length).toBe(2 * once);
    expect(journalText([], MOST)).toBe('');
    expect(journalText([Buffer.alloc(4096, 0xff), Buffer.alloc(4096)], MOST)).toBe('');
  });

  it('comes to an end with whatever a guest may have written instead', () => {
    let state = 20_261_121;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 200; round++) {
      const broken = Buffer.from(file.subarray(0, round % 4 === 0 ? random(file.length) : file.length));
      for (let change = 0; change < 1 + random(400) && broken.length > 0; change++) {
        // Mostly where lengths and offsets are; now and then the largest there is.
        const at = random(round % 2 === 0 ? broken.length : Math.min(broken.length, 8_192));
        broken.fill(random(3) === 0 ? 0xff : random(256), at, at + 1 + random(8));
      }
      expect(journalText([broken], MOST).length).toBeLessThanOrEqual(MOST.characters);
    }
  });
});
