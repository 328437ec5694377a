/** Hosts that were seen. What a host has free is asked of it, not stored. */
import type { Database } from './tables.ts';

export interface SeenHost {
  readonly id: string;
  readonly driver: string;
  readonly image: string | null;
}

/** Notes that a host answered just now. */
export async function recordHost(db: Database, host: SeenHost): Promise<void> {
  const seen = { ...host, seenAt: new Date() };
  await db
    .insertInto('hosts')
    .values(seen)
    .onConflict((conflict) => conflict.column('id').doUpdateSet(seen))
    .execute();
}

export async function listSeenHosts(db: Database): Promise<(SeenHost & { seenAt: Date })[]> {
  return db.selectFrom('hosts').selectAll().orderBy('id').execute();
}
