/**
 * What a step gives. DBOS stores it and gives it again after a restart, so a failure is a value (a thrown error would
 * come back without its code), and nothing in it is secret.
 */
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';

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

/** Runs a step's work; after the closing began nothing of it counts. */
export async function attempt<T>(closing: AbortSignal, work: () => Promise<T>): Promise<StepResult<T>> {
  let result: StepResult<T>;
  try {
    result = success(await work());
  } catch (error) {
    result = failure(error);
  }
  return closing.aborted ? park() : result;
}
