/** People, by the caller's own names for them. A row exists for everybody who ever was named. */
import type { UserId } from '../../protocol/ids.ts';
import type { Database } from './tables.ts';

/** Idempotent. */
export async function ensureUser(db: Database, id: UserId): Promise<void> {
  await db
    .insertInto('users')
    .values({ id })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}
