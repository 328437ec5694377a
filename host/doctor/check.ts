/**
 * host/doctor/: what can be seen of a host before a machine starts, by trying it, each with what was seen and the command
 * that mends it.
 */
import type { CheckState, DoctorCheck, DoctorReport } from '../../protocol/doctor.ts';

export type Check = DoctorCheck;

const check =
  (state: CheckState) =>
  (name: string, evidence: string, remedy: string): Check => ({ name, state, evidence, remedy });

/** `remedy`, if any, is how to get what works without. */
export const ok = (name: string, evidence: string, remedy: string | null = null): Check => ({
  name,
  state: 'ok',
  evidence,
  remedy,
});
export const warn = check('warn');
export const fail = check('fail');
/** It could not be tried. */
export const unknown = check('unknown');

/** What a check threw is what it saw. */
export async function attempt(
  name: string,
  remedy: string,
  work: () => Promise<Check | Check[]>,
): Promise<Check[]> {
  try {
    return [await work()].flat();
  } catch (error) {
    return [fail(name, error instanceof Error ? error.message : String(error), remedy)];
  }
}

/** The checks as they are handed on. */
export const report = (checks: readonly Check[]): DoctorReport => ({
  at: new Date().toISOString(),
  ok: checks.every(({ state }) => state !== 'fail'),
  checks: [...checks],
});
