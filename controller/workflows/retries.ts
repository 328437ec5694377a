/** Repeats what a restart of the host service, or a broken channel, has cut off. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';

/** How long it is tried: longer than a host service takes to start again on a busy computer. */
const PATIENCE_MS = 30_000;
/** Work that went on for as long was not cut off by what broke before it. */
const LONG_MS = 30_000;

/**
 * Runs `work` until it fails for another reason than one of `codes`, or has failed for half a minute.
 * @throws the last failure
 */
export async function withRetries<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
  codes: readonly ErrorCode[] = ['machine_unreachable', 'host_unreachable'],
): Promise<T> {
  let failing: number | undefined;
  for (let delayMs = 200; ; delayMs = Math.min(delayMs * 2, 1_500)) {
    const began = performance.now();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !codes.includes(PolydevError.from(error).code)) throw error;
      const now = performance.now();
      if (failing === undefined || now - began > LONG_MS) [failing, delayMs] = [now, 200];
      if (now - failing > PATIENCE_MS) throw error;
    }
    await sleep(delayMs, undefined, { signal });
  }
}
