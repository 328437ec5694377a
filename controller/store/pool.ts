/** Machines that are booted and nobody's: requested for the pool, and given to the first session that wants one. */
import { sql } from 'kysely';
import { type MachineId, type SessionId, UserId } from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import { checkQuota, insertMachine, type NewMachineRequest, type Quota } from './machines.ts';
import type { Database, MachineRow, Tx } from './tables.ts';
import { appendEvent } from './timeline.ts';
import { ensureUser } from './users.ts';

/** Whose machines are in the pool: nobody's. */
export const POOL_USER = UserId.parse('polydev:pool');

/** Makes a row for the pool, `requested`. */
export function requestPooled(
  db: Database,
  request: Omit<NewMachineRequest, 'userId' | 'sessionId' | 'kind'>,
): Promise<MachineRow> {
  return db
    .transaction()
    .execute((tx) =>
      insertMachine(tx, { ...request, kind: 'browser', userId: POOL_USER, sessionId: null, pooled: true }),
    );
}

/** Of a host, those that are not gone, oldest first. */
export function listPooled(db: Database, hostId: string): Promise<MachineRow[]> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('pooled', '=', true)
    .where('hostId', '=', hostId)
    .where('state', '!=', 'destroyed')
    .orderBy('createdAt')
    .execute();
}

/** When a machine of the pool last failed. */
export async function lastPoolFailure(db: Database, hostId: string): Promise<Date | null> {
  const row = await db
    .selectFrom('machines')
    .select((from) => from.fn.max('endedAt').as('at'))
    .where('pooled', '=', true)
    .where('hostId', '=', hostId)
    .where('error', 'is not', null)
    .executeTakeFirst();
  return row?.at ?? null;
}

export interface Claimant {
  readonly sessionId: SessionId;
  readonly userId: UserId;
  readonly realm: Realm;
  readonly quota: Quota;
}

/**
 * Gives the oldest ready machine of the realm to a session, once `personalise` has made it that session's; nobody else is
 * given it meanwhile, and when that throws it stays in the pool.
 * @returns undefined when there is none; the machine that could not be personalised with the reason
 */
export async function claimPooled(
  db: Database,
  claimant: Claimant,
  personalise: (machine: MachineRow) => Promise<void>,
): Promise<{ claimed: MachineRow } | { broken: MachineId; error: unknown } | undefined> {
  const { sessionId, userId, realm, quota } = claimant;
  return db.transaction().execute(async (tx) => {
    const row = await lockOldest(tx, realm);
    if (row === undefined) return undefined;
    await ensureUser(tx, userId);
    await checkQuota(tx, userId, quota, row.limits.diskMiB ?? 0);
    try {
      await personalise(row);
    } catch (error) {
      return { broken: row.id, error };
    }
    const claimed = await tx
      .updateTable('machines')
      .set({
        userId,
        sessionId,
        pooled: false,
        // What somebody sees of it who looked before, with the token of the pool, does not count any more.
        stateAt: sql<Date>`clock_timestamp()`,
        usedAt: sql<Date>`clock_timestamp()`,
      })
      .where('id', '=', row.id)
      .returningAll()
      .executeTakeFirstOrThrow();
    await appendEvent(tx, {
      subject: 'machine',
      id: row.id,
      kind: 'state',
      name: 'ready',
      detail: 'claimed from the pool',
      sessionId,
      machineId: row.id,
    });
    return { claimed };
  });
}

function lockOldest(tx: Tx, realm: Realm): Promise<MachineRow | undefined> {
  return tx
    .selectFrom('machines')
    .selectAll()
    .where('pooled', '=', true)
    .where('state', '=', 'ready')
    .where('realm', '=', realm)
    .orderBy('createdAt')
    .limit(1)
    .forUpdate()
    .skipLocked()
    .executeTakeFirst();
}
