/** Removes what is too old to be asked for. */
import type { Database } from './tables.ts';

const BATCH = 1_000;

/**
 * Deletes, in batches, what was over before `cutoff`: events, audit entries, ended sessions, destroyed machines, and
 * means of access that had expired.
 * @returns how many rows went; stops between batches when the signal fires
 */
export async function prune(
  db: Database,
  cutoff: Date,
  signal: AbortSignal,
  batch: number = BATCH,
): Promise<number> {
  const deletions: readonly (() => Promise<{ numDeletedRows: bigint }>)[] = [
    () =>
      db
        .deleteFrom('timeline')
        .where('seq', 'in', (from) =>
          from.selectFrom('timeline').select('seq').where('at', '<', cutoff).limit(batch),
        )
        .executeTakeFirstOrThrow(),
    () =>
      db
        .deleteFrom('audit')
        .where('seq', 'in', (from) =>
          from.selectFrom('audit').select('seq').where('at', '<', cutoff).limit(batch),
        )
        .executeTakeFirstOrThrow(),
    () =>
      db
        .deleteFrom('loginSessions')
        .where('id', 'in', (from) =>
          from
            .selectFrom('loginSessions')
            .select('id')
            .where('endedAt', '<', cutoff)
            .where('cleanedAt', '<', cutoff)
            .limit(batch),
        )
        .executeTakeFirstOrThrow(),
    // After the sessions, which refer to them.
    () =>
      db
        .deleteFrom('machines')
        .where('id', 'in', (from) =>
          from
            .selectFrom('machines')
            .select('id')
            .where('state', '=', 'destroyed')
            .where('endedAt', '<', cutoff)
            .where(({ not, exists, selectFrom }) =>
              not(
                exists(
                  selectFrom('loginSessions')
                    .select('loginSessions.id')
                    .where(({ or, eb }) =>
                      or([
                        eb('loginSessions.browserMachineId', '=', eb.ref('machines.id')),
                        eb('loginSessions.cliMachineId', '=', eb.ref('machines.id')),
                      ]),
                    ),
                ),
              ),
            )
            .limit(batch),
        )
        .executeTakeFirstOrThrow(),
    () => db.deleteFrom('webSessions').where('expiresAt', '<', cutoff).executeTakeFirstOrThrow(),
    () => db.deleteFrom('signInLinks').where('expiresAt', '<', cutoff).executeTakeFirstOrThrow(),
  ];
  let gone = 0;
  for (const remove of deletions) {
    for (let removed = batch; removed >= batch && !signal.aborted; ) {
      removed = Number((await remove()).numDeletedRows);
      gone += removed;
    }
  }
  return gone;
}
