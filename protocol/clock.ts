/**
 * Setting a guest's clock over a way whose length nobody knows. Each answer of the guest is a sample as in NTP (RFC 5905): that its way
 * took as long there as back is right to half of both. A clock is stepped by what a sample says, not set to a time that gets old on its way.
 */

/** How far a clock is ahead of ours, right to `uncertainMs`. */
export interface ClockSample {
  readonly aheadMs: number;
  readonly uncertainMs: number;
}

/** How far a guest's clock may be off, milliseconds. */
export const CLOCK_TOLERANCE_MS = 50;
/** Nearer than this a clock is left alone. */
const STEP_MS = 10;
/** On a busy computer one of a few ways is short. */
const LOOKS = 8;

/** One answer: asked at `sentMs` of our clock, heard `roundMs` later; the guest's clock said `time` when it answered, `tookMs` after it was asked. */
export function clockSample(answer: {
  sentMs: number;
  roundMs: number;
  time: string;
  tookMs: number;
}): ClockSample {
  const { sentMs, roundMs, time, tookMs } = answer;
  const uncertainMs = Math.max(roundMs - tookMs, 0) / 2;
  return { aheadMs: Date.parse(time) - tookMs - (sentMs + uncertainMs), uncertainMs };
}

/** Whether the clock is right, however long either way was. */
export const isSurelyRight = ({ aheadMs, uncertainMs }: ClockSample): boolean =>
  Math.abs(aheadMs) + uncertainMs <= CLOCK_TOLERANCE_MS;

/** Whether nothing shows that it is wrong. */
export const mayBeRight = ({ aheadMs, uncertainMs }: ClockSample): boolean =>
  Math.abs(aheadMs) <= CLOCK_TOLERANCE_MS + uncertainMs;

/**
 * Steps a clock until it is known to be right, or as right as the best of a few samples can say. `look` steps the guest's clock by so many
 * milliseconds (0: leaves it alone), and says what it shows then and whether it was stepped. Throws what `look` throws.
 */
export async function setClock(
  first: ClockSample,
  look: (stepMs: number) => Promise<ClockSample & { stepped: boolean }>,
): Promise<ClockSample> {
  let best = first;
  for (let left = LOOKS; left > 0 && !isSurelyRight(best); left--) {
    const stepMs = Math.abs(best.aheadMs) > STEP_MS ? -best.aheadMs : 0;
    const seen = await look(stepMs);
    if (seen.stepped) best = { ...best, aheadMs: best.aheadMs + stepMs };
    if (seen.uncertainMs < best.uncertainMs || !mayBeRight(seen)) best = seen;
  }
  return best;
}
