import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { archive } from './archive.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'polydev-archive-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('an archive', () => {
  it("is what the system's tar unpacks to the same bytes", () => {
    const files = [
      { name: 'm/empty.log', content: Buffer.alloc(0), modified: new Date('2026-01-02T03:04:05Z') },
      { name: 'm/block.log', content: Buffer.alloc(512, 'b'), modified: new Date() },
      { name: 'm/picture.png', content: Buffer.from([0, 255, 137, 80, 10]), modified: new Date() },
    ];
    const file = path.join(folder, 'all.tar.gz');
    writeFileSync(file, archive(files));
    execFileSync('tar', ['-xzf', file, '-C', folder]);
    for (const { name, content } of files) expect(readFileSync(path.join(folder, name))).toEqual(content);
    expect(execFileSync('tar', ['-tvzf', file, '--utc']).toString()).toContain('2026-01-02 03:04');
  });

  it('refuses a name that the format cannot hold', () => {
    expect(() =>
      archive([{ name: 'x'.repeat(101), content: Buffer.alloc(1), modified: new Date() }]),
    ).toThrow('too long');
  });
});
