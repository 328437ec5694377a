/** What the tables of protocol/lifecycles.ts allow, turned around for `UPDATE ... WHERE state IN (...)`. */
import { PolydevError } from '../../protocol/errors.ts';

/** The states from which `to` may be entered. */
export function statesBefore<State extends string>(
  table: Readonly<Record<State, readonly State[]>>,
  to: State,
): State[] {
  return (Object.keys(table) as State[]).filter((from) => table[from].includes(to));
}

/** @throws not_found when there is no such row, else illegal_transition */
export function refuseTransition(noun: string, id: string, current: string | undefined, to: string): never {
  if (current === undefined) throw new PolydevError('not_found', `there is no ${noun} ${id}`);
  throw new PolydevError('illegal_transition', `${noun} ${id} is ${current} and cannot become ${to}`);
}

/** Whether a database error is the violation of one unique constraint. */
export function violates(error: unknown, constraint: string): boolean {
  return (
    error instanceof Error &&
    'code' in error &&
    error.code === '23505' &&
    'constraint' in error &&
    error.constraint === constraint
  );
}
