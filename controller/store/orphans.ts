/** Machines that a host has and no table: since when, so that the time they stay outlives a controller. */
import type { MachineId } from '../../protocol/ids.ts';
import type { Database } from './tables.ts';

export interface Orphan {
  readonly id: MachineId;
  readonly hostId: string;
  readonly seenAt: Date;
}

/** Notes those that a host has now, forgets the others of that host, and gives all with when they were first seen. */
export async function trackOrphans(
  db: Database,
  hostId: string,
  ids: readonly MachineId[],
): Promise<Orphan[]> {
  return db.transaction().execute(async (tx) => {
    let gone = tx.deleteFrom('orphans').where('hostId', '=', hostId);
    if (ids.length > 0) gone = gone.where('id', 'not in', ids);
    await gone.execute();
    for (const id of ids) {
      await tx
        .insertInto('orphans')
        .values({ id, hostId })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    }
    return tx.selectFrom('orphans').selectAll().where('hostId', '=', hostId).execute();
  });
}

export async function listOrphans(db: Database): Promise<Orphan[]> {
  return db.selectFrom('orphans').selectAll().orderBy('seenAt').execute();
}
