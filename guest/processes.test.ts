import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unspared } from './processes.ts';

describe('what the agent starts where the kernel spares it', () => {
  let folder: string;
  let score: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-score-'));
    score = join(folder, 'oom_score_adj');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('has the usual score, also when it does not start', () => {
    writeFileSync(score, '-500\n');
    expect(unspared(() => readFileSync(score, 'utf8'), score)).toBe('0');
    expect(readFileSync(score, 'utf8')).toBe('-500');
    const fails = (): never => {
      throw new Error('no such program');
    };
    expect(() => unspared(fails, score)).toThrow('no such program');
    expect(readFileSync(score, 'utf8')).toBe('-500');
  });

  it('keeps a score that somebody raised', () => {
    writeFileSync(score, '300\n');
    expect(unspared(() => readFileSync(score, 'utf8'), score)).toBe('300\n');
  });
});
