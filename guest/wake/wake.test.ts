import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { AgentLog } from '../log.ts';
import { Program } from './run.ts';
import { mend, mender, monotonicMs } from './wake.ts';

const log = new AgentLog(() => undefined);

describe('a guest that wakes', () => {
  it.skipIf(process.getuid?.() !== 0)(
    'gives the kernel random bytes and leaves a clock alone that is right (needs root)',
    async () => {
      const now = { time: Date.now(), at: monotonicMs() };
      const { aheadMs, clockSet, reseeded } = await mend(now, randomBytes(64), log);
      expect(clockSet).toBe(Math.abs(aheadMs) > 10);
      expect(reseeded, log.text()).toBe(true);
    },
  );

  it('sets its clock by what it was told, however long that took', async () => {
    const bytes = randomBytes(64);
    const run = vi.spyOn(mender, 'run').mockResolvedValue(undefined);
    // A processor that is taken away between any two of our readings.
    const slow = vi.spyOn(process.hrtime, 'bigint').mockReturnValue(9_000_000_000n);
    try {
      const now = { time: 1_700_000_000_123, at: 5_000.5 };
      expect(await mend(now, bytes, log)).toMatchObject({ clockSet: true, reseeded: true });
      const offset = (1_700_000_000_123n - 5_000n) * 1_000_000n - 500_000n;
      const said = run.mock.calls[0]?.[0] as Buffer;
      const end = said.indexOf('\n');
      const off = Number(BigInt(said.subarray(0, end).toString()) - offset);
      // Of numbers of this size a double is right to a quarter of a microsecond.
      expect(Math.abs(off)).toBeLessThan(1_000);
      expect(said.subarray(end + 1)).toEqual(bytes);
    } finally {
      run.mockRestore();
      slow.mockRestore();
    }
  });
});

describe('a program that gets its input later', () => {
  it('is the one that was started before, once', async () => {
    const program = new Program('sh', '-c', 'read -r line; echo "$$ $line" >&2; exit 1');
    program.prepare();
    program.prepare();
    const [first, second] = [await program.run('one\n'), await program.run('two\n')];
    expect(first).toMatch(/^\d+ one$/);
    expect(second).toMatch(/^\d+ two$/);
    expect(first?.split(' ')[0]).not.toBe(second?.split(' ')[0]);
  });

  it('is started again where it has ended meanwhile, and says what was wrong', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'polydev-run-'));
    try {
      // The first one ends at once, and the next does not.
      const program = new Program(
        'sh',
        '-c',
        `mkdir ${folder}/first 2> /dev/null && exit 4; cat > /dev/null`,
      );
      program.prepare();
      await vi.waitFor(() => expect(existsSync(join(folder, 'first'))).toBe(true), 30_000);
      await sleep(200);
      expect(await program.run('input')).toBeUndefined();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('says that it is not there', async () => {
    expect(await new Program('/nowhere/program').run('input')).toContain('ENOENT');
  });
});
