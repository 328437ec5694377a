/**
 * What time it is for a guest, over a way whose length nobody knows. A guest has a clock of its own that nobody sets (GET /v1/clock of its
 * agent): what time it was when that said so much stays true, however long it takes to tell the guest.
 */

/** What time it was when the guest's own clock said `uptimeMs`. */
export interface KnownClock {
  /** ISO 8601 in UTC, milliseconds. */
  readonly time: string;
  readonly uptimeMs: number;
}

/** Known better than this it need not be. */
const NEAR_MS = 20;
/** On a busy computer one of a few ways is short; the first is long where nothing in the guest is warm. */
const LOOKS = 8;

/**
 * Looks at a guest's own clock until that took a short time: the way there and back is known together only, so what is known is off by half of
 * it at most (as in NTP, RFC 5905). `look`: what the clock says, and how many milliseconds asking took. Throws what `look` throws.
 */
export async function readClock(
  look: () => Promise<{ uptimeMs: number; tookMs: number }>,
): Promise<KnownClock> {
  let offMs = Number.POSITIVE_INFINITY;
  let known: KnownClock | undefined;
  for (let left = LOOKS; known === undefined || (left > 0 && offMs > NEAR_MS); left--) {
    const { uptimeMs, tookMs } = await look();
    const now = Date.now();
    if (known !== undefined && tookMs / 2 >= offMs) continue;
    offMs = tookMs / 2;
    known = { time: new Date(now - offMs).toISOString(), uptimeMs };
  }
  return known;
}
