/**
 * What a step gives. DBOS stores it and gives it again after a restart, so a failure is a value (a thrown error would
 * come back without its code), and nothing in it is secret.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import { isConnectionLost } from '../store/connection.ts';

export type StepResult<T = null> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ErrorReport };

export const success = <T>(value: T): StepResult<T> => ({ ok: true, value });

export const failure = (thrown: unknown): StepResult<never> => ({
  ok: false,
  error: PolydevError.from(thrown).toReport(),
});

/** The value, or the failure thrown as the PolydevError that it was. */
export function unwrap<T>(result: StepResult<T>): T {
  if (result.ok) return result.value;
  throw PolydevError.fromReport({ error: result.error });
}

/** A promise that never settles: how a step of a closing controller ends without a result, to be repeated later. */
export const park = (): Promise<never> => new Promise(() => undefined);

/** For how long a step waits for a database that is gone. */
const DATABASE_PATIENCE_MS = 300_000;

/**
 * Runs a step's work; after the closing began nothing of it counts. The loss of the database is not the work's failure: it
 * is done again when the database answers, as after a restart of the controller.
 */
export async function attempt<T>(closing: AbortSignal, work: () => Promise<T>): Promise<StepResult<T>> {
  const giveUpAt = Date.now() + DATABASE_PATIENCE_MS;
  for (let delayMs = 200; ; delayMs = Math.min(delayMs * 2, 2_000)) {
    let result: StepResult<T>;
    let again = false;
    try {
      result = success(await work());
    } catch (error) {
      result = failure(error);
      again = isConnectionLost(error) && Date.now() < giveUpAt;
    }
    if (closing.aborted) return park();
    if (!again) return result;
    await sleep(delayMs, undefined, { ref: false });
  }
}
