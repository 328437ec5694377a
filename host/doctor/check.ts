/**
 * host/doctor/: what can be seen of a host before a machine starts, by trying it, each with what was seen and the command
 * that mends it.
 */
export interface Check {
  /** Short and stable, for scripts. */
  readonly name: string;
  /** `warn`: machines start, but something about them will not work or soon not work. */
  readonly result: 'ok' | 'warn' | 'fail';
  /** What was seen. */
  readonly fact: string;
  /** The command that mends it, or what to change; none when nothing is to be done. */
  readonly remedy: string | null;
}

export const ok = (name: string, fact: string): Check => ({ name, result: 'ok', fact, remedy: null });
export const warn = (name: string, fact: string, remedy: string): Check => ({
  name,
  result: 'warn',
  fact,
  remedy,
});
export const fail = (name: string, fact: string, remedy: string): Check => ({
  name,
  result: 'fail',
  fact,
  remedy,
});

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
