/** What the tables of protocol/lifecycles.ts allow, turned around for `UPDATE ... WHERE state = ANY (...)`. */
import { type RawBuilder, sql } from 'kysely';
import { PolydevError } from '../../protocol/errors.ts';

/** The states from which `to` may be entered. */
export function statesBefore<State extends string>(
  table: Readonly<Record<State, readonly State[]>>,
  to: State,
): State[] {
  return (Object.keys(table) as State[]).filter((from) => table[from].includes(to));
}

/** `= ANY(...)`, which an empty list satisfies never (`IN ()` is no SQL). */
export const anyOf = <State extends string>(states: readonly State[]): RawBuilder<State> =>
  sql<State>`ANY(${states}::text[])`;

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
