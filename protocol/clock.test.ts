import { describe, expect, it } from 'vitest';
import { type ClockSample, clockSample, isSurelyRight, mayBeRight, setClock } from './clock.ts';

/** A guest whose clock is so far ahead, behind a way that takes as long as the next two of `ways` say. */
function guest(aheadMs: number, ways: readonly number[], steps = true) {
  const time = { now: 1_700_000_000_000, ahead: aheadMs, asked: 0 };
  const rest = [...ways];
  const look = async (stepMs: number): Promise<ClockSample & { stepped: boolean }> => {
    time.asked += 1;
    const [there = 1, back = 1, tookMs = 5] = [rest.shift(), rest.shift()];
    const sentMs = time.now;
    time.now += there;
    const stepped = steps && stepMs !== 0;
    if (stepped) time.ahead += stepMs;
    time.now += tookMs;
    const said = new Date(time.now + time.ahead).toISOString();
    time.now += back;
    return { ...clockSample({ sentMs, roundMs: time.now - sentMs, time: said, tookMs }), stepped };
  };
  return { time, look };
}

describe('the clock of a guest', () => {
  it('is seen right to half of what both ways take', async () => {
    const { look } = guest(100, [30, 10]);
    expect(await look(0)).toEqual({ aheadMs: 110, uncertainMs: 20, stepped: false });
  });

  it('is left alone when it is right', async () => {
    const { time, look } = guest(3, [2, 2]);
    expect(isSurelyRight(await setClock(await look(0), look))).toBe(true);
    expect(time).toMatchObject({ asked: 1, ahead: 3 });
  });

  it.each([
    ['hours behind', -7_200_000, [40, 2, 3, 3]],
    ['set to a time that was old when it came', -900, [900, 30, 20, 10]],
    ['behind ways of which one alone is short', 5_000, [900, 1, 800, 3, 700, 9, 20, 30, 800, 1]],
  ])('%s becomes right', async (_, aheadMs, ways) => {
    const { time, look } = guest(aheadMs, ways);
    const sample = await setClock(await look(0), look);
    expect(isSurelyRight(sample)).toBe(true);
    expect(Math.abs(time.ahead)).toBeLessThanOrEqual(50);
  });

  it('is as right as the best of a few ways can say, where all are long', async () => {
    const { time, look } = guest(
      -60_000,
      Array.from({ length: 40 }, (_, index) => (index % 2 ? 400 : 300)),
    );
    const sample = await setClock(await look(0), look);
    expect(isSurelyRight(sample)).toBe(false);
    expect(mayBeRight(sample)).toBe(true);
    expect(Math.abs(time.ahead)).toBeLessThanOrEqual(sample.uncertainMs);
    expect(time.asked).toBeLessThan(12);
  });

  it('is known to be wrong when it cannot be set', async () => {
    const { look } = guest(-60_000, [], false);
    expect(mayBeRight(await setClock(await look(0), look))).toBe(false);
  });
});
