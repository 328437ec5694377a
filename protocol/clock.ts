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
/** Worse than this is worth more looks. */
const FAR_MS = 50;
const LOOKS_FROM_FAR = 32;

/**
 * Looks at a guest's own clock until what time it was then is known well. Each look says: not before it was asked, and not after the
 * answer came. Together they are nearer than the shortest of them, as the way there may have been short once, and the way back another
 * time; the middle of what is left is off by half of it at most (as in NTP, RFC 5905). `look`: what the clock says, and how many
 * milliseconds asking took. Throws what `look` throws.
 */
export async function readClock(
  look: () => Promise<{ uptimeMs: number; tookMs: number }>,
): Promise<KnownClock> {
  // When that clock began, in our time.
  let earliest = Number.NEGATIVE_INFINITY;
  let latest = Number.POSITIVE_INFINITY;
  for (let looks = 1; ; looks++) {
    const { uptimeMs, tookMs } = await look();
    const now = Date.now();
    const began = { earliest: now - tookMs - uptimeMs, latest: now - uptimeMs };
    earliest = Math.max(earliest, began.earliest);
    latest = Math.min(latest, began.latest);
    // One of both clocks was set, or stood still, between two looks: what was known before is of no use.
    if (earliest > latest) ({ earliest, latest } = began);
    const offMs = (latest - earliest) / 2;
    if (offMs <= NEAR_MS || looks >= (offMs <= FAR_MS ? LOOKS : LOOKS_FROM_FAR))
      return { time: new Date(earliest + offMs + uptimeMs).toISOString(), uptimeMs };
  }
}
