import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readClock } from './clock.ts';

const BOOTED = 1_700_000_000_000;

/** How far what is known of a guest's clock is off, and how often it was asked, when ways take as long as the next two of `ways` say. */
async function read(...ways: number[]): Promise<{ offMs: number; looks: number }> {
  let looks = 0;
  const { time, uptimeMs } = await readClock(async () => {
    const [there = 1, back = 1] = ways.slice(2 * looks);
    looks += 1;
    vi.setSystemTime(Date.now() + there);
    const said = Date.now() - BOOTED;
    vi.setSystemTime(Date.now() + back);
    return { uptimeMs: said, tookMs: there + back };
  });
  return { offMs: Date.parse(time) - uptimeMs - BOOTED, looks };
}

describe('what time it is for a guest', () => {
  beforeEach(() => vi.useFakeTimers({ now: BOOTED + 5_000 }));
  afterEach(() => vi.useRealTimers());

  it('is known at once where the way is short', async () => {
    expect(await read(2, 4)).toEqual({ offMs: 1, looks: 1 });
  });

  it('is known by the shortest of a few ways, which need not be the last', async () => {
    expect(await read(900, 20, 300, 400, 6, 4)).toEqual({ offMs: -1, looks: 3 });
    const long = [700, 100, 90, 10, 300, 300];
    expect(await read(...long, ...long, ...long)).toEqual({ offMs: -40, looks: 8 });
    // Nothing was short enough.
    expect(await read(...Array<number>(80).fill(300))).toEqual({ offMs: 0, looks: 32 });
  });

  it('is known by a short way there and another short way back, as a busy guest has them', async () => {
    expect(await read(900, 5, 15, 600)).toEqual({ offMs: -5, looks: 2 });
  });

  it('is known anew when our clock was set between two looks', async () => {
    const steps = [200, 3_600_000, 0];
    let looks = 0;
    const { time, uptimeMs } = await readClock(async () => {
      vi.setSystemTime(Date.now() + (steps[looks] ?? 0));
      looks += 1;
      return { uptimeMs: looks, tookMs: looks === 3 ? 10 : 200 };
    });
    const known = { time: Date.parse(time), uptimeMs, looks };
    expect(known).toEqual({ time: Date.now() - 5, uptimeMs: 3, looks: 3 });
  });
});
