/** Repeats what a restart of the host service, or a broken channel, has cut off. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';

/** How often something is tried, with about ten seconds of waiting in all: longer than a host service takes to start again. */
const ATTEMPTS = 10;

/**
 * Runs `work` until it fails for another reason than one of `codes`, at most ten times in a row. A failure after half a minute
 * of work counts as the first.
 */
export async function withRetries<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
  codes: readonly ErrorCode[] = ['machine_unreachable', 'host_unreachable'],
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const began = performance.now();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !codes.includes(PolydevError.from(error).code)) throw error;
      if (performance.now() - began > 30_000) attempt = 0;
      if (attempt >= ATTEMPTS) throw error;
    }
    await sleep(Math.min(100 * 2 ** attempt, 1_500), undefined, { signal });
  }
}
