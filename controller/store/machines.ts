/** Machines. */
import { sql } from 'kysely';
import type { Machine } from '../../protocol/api.ts';
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import type { MachineId, SessionId, UserId } from '../../protocol/ids.ts';
import { MACHINE_TRANSITIONS, type MachineState, machineActions } from '../../protocol/lifecycles.ts';
import type { Display, Limits, MachineKind, Realm, Stamp } from '../../protocol/machine.ts';
import type { Database, MachineRow, Tx } from './tables.ts';
import { appendEvent } from './timeline.ts';
import { anyOf, refuseTransition, statesBefore, violates } from './transitions.ts';
import { ensureUser } from './users.ts';

export interface NewMachineRequest {
  id: MachineId;
  kind: MachineKind;
  realm: Realm;
  userId: UserId;
  /** For a browser machine. */
  sessionId: SessionId | null;
  hostId: string;
  limits: Limits;
  display: Display;
}

/** How much of what one person may have. */
export interface Quota {
  readonly machines: number;
  /** Private disks together. */
  readonly diskMiB: number;
}

export interface MachinePatch {
  driver?: string;
  image?: string;
  address?: string | null;
  /** Null: what was wrong is over. */
  error?: ErrorReport | null;
  /** When a failed machine that is kept goes. */
  removeAt?: Date;
}

const columns = (patch: MachinePatch) => {
  const { error, ...rest } = patch;
  return {
    ...rest,
    ...(error === undefined ? {} : { error: error === null ? null : JSON.stringify(error) }),
  };
};

/**
 * Makes a machine, `requested`, and gives its row. Idempotent by id; for a CLI machine the one that the person
 * already has in this realm is given instead.
 * @throws quota_exceeded
 */
export async function requestMachine(
  db: Database,
  request: NewMachineRequest,
  quota?: Quota,
): Promise<MachineRow> {
  const existing = await getMachine(db, request.id);
  if (existing !== undefined) return existing;
  if (request.kind === 'cli') {
    const mine = await findCliMachine(db, request.userId, request.realm);
    if (mine !== undefined) return mine;
  }
  try {
    return await db.transaction().execute(async (tx) => {
      await ensureUser(tx, request.userId);
      if (quota !== undefined) await checkQuota(tx, request.userId, quota, request.limits.diskMiB ?? 0);
      return insertMachine(tx, request);
    });
  } catch (error) {
    if (!violates(error, 'machines_one_cli')) throw error;
    const mine = await findCliMachine(db, request.userId, request.realm);
    if (mine === undefined) throw error;
    return mine;
  }
}

/** Writes the row, `requested`, with its event. */
export async function insertMachine(
  tx: Tx,
  request: NewMachineRequest & { pooled?: boolean },
): Promise<MachineRow> {
  await ensureUser(tx, request.userId);
  const row = await tx
    .insertInto('machines')
    .values({
      ...request,
      state: 'requested',
      limits: JSON.stringify(request.limits),
      display: JSON.stringify(request.display),
      stamps: '[]',
    })
    .returningAll()
    .executeTakeFirstOrThrow();
  await appendEvent(tx, stateEvent(row, 'requested', request.kind));
  return row;
}

/**
 * Holds the person's row, so that two requests at once do not both fit. Machines that failed or go do not count: the person can
 * do nothing about them.
 * @throws quota_exceeded
 */
export async function checkQuota(tx: Tx, userId: UserId, quota: Quota, diskMiB: number): Promise<void> {
  await tx.selectFrom('users').select('id').where('id', '=', userId).forUpdate().execute();
  const { machines, disk } = await tx
    .selectFrom('machines')
    .select([
      sql<number>`count(*)::int`.as('machines'),
      sql<number>`coalesce(sum((limits->>'diskMiB')::int), 0)::int`.as('disk'),
    ])
    .where('userId', '=', userId)
    .where('state', 'not in', ['destroying', 'destroyed', 'failed'])
    .executeTakeFirstOrThrow();
  if (machines + 1 > quota.machines) {
    throw new PolydevError(
      'quota_exceeded',
      `${userId} has ${machines} machines; a person may have ${quota.machines}`,
    );
  }
  if (disk + diskMiB > quota.diskMiB) {
    throw new PolydevError(
      'quota_exceeded',
      `the disks of the machines of ${userId} have ${disk} MiB; with ${diskMiB} MiB more they would be over the ` +
        `${quota.diskMiB} MiB that a person may have`,
    );
  }
}

const stateEvent = (
  row: { id: MachineId; sessionId: SessionId | null },
  name: MachineState,
  detail: string | null,
) => ({
  subject: 'machine' as const,
  id: row.id,
  kind: 'state' as const,
  name,
  detail,
  sessionId: row.sessionId,
  machineId: row.id,
});

/**
 * Moves a machine to a state, in one transaction with its timeline event. Entering `creating` starts a new checklist.
 * Entering `ready` counts as use.
 * @param options.from narrows the states from which it may go there
 * @param options.unusedSince refuses when somebody used it later
 * @param options.pooled refuses one that is in the pool no more
 * @throws illegal_transition, not_found
 */
export async function advanceMachine(
  db: Database,
  id: MachineId,
  to: MachineState,
  patch: MachinePatch = {},
  options: { detail?: string; from?: readonly MachineState[]; unusedSince?: Date; pooled?: boolean } = {},
): Promise<void> {
  const { from, detail, unusedSince, pooled } = options;
  const before = statesBefore(MACHINE_TRANSITIONS, to).filter((state) => from?.includes(state) ?? true);
  await db.transaction().execute(async (tx) => {
    let update = tx.updateTable('machines');
    if (unusedSince !== undefined) update = update.where('usedAt', '<', unusedSince);
    if (pooled !== undefined) update = update.where('pooled', '=', pooled);
    const row = await update
      .set({
        state: to,
        stateAt: sql<Date>`clock_timestamp()`,
        revision: sql<number>`revision + 1`,
        ...columns(patch),
        ...(to === 'creating'
          ? { startedAt: sql<Date>`clock_timestamp()`, stamps: '[]', address: null }
          : {}),
        ...(to === 'ready' ? { usedAt: sql<Date>`clock_timestamp()` } : {}),
        // What was seen before says nothing of what comes.
        health: null,
        ...(to === 'destroyed' || to === 'failed' ? { endedAt: sql<Date>`clock_timestamp()` } : {}),
      })
      .where('id', '=', id)
      .where('state', '=', anyOf(before))
      .returning(['id', 'sessionId'])
      .executeTakeFirst();
    if (row === undefined) refuseTransition('machine', id, (await getMachine(tx, id))?.state, to);
    await appendEvent(tx, stateEvent(row, to, detail ?? patch.error?.code ?? null));
    // What is gone or broken holds no credential any more.
    if (to === 'destroyed' || to === 'failed') {
      await tx
        .updateTable('credentials')
        .set({ holderMachineId: null })
        .where('holderMachineId', '=', id)
        .execute();
    }
  });
}

/**
 * Notes that somebody needs a machine now, and gives its row as it was at that moment: one that is `ready` does not hibernate
 * for being idle from then on, and one that does is seen as that.
 */
export async function touchMachine(db: Database, id: MachineId): Promise<MachineRow | undefined> {
  return db
    .updateTable('machines')
    .set({ usedAt: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst();
}

/** Notes facts without a change of state. */
export async function patchMachine(db: Database, id: MachineId, patch: MachinePatch): Promise<void> {
  await db.updateTable('machines').set(columns(patch)).where('id', '=', id).execute();
}

/** A checkpoint that was reached now, and how long after the request of the start; null: that is not known. */
export interface Reached {
  readonly driver: string | null;
  readonly kind: MachineKind;
  readonly durationMs: number | null;
}

/**
 * Adds a boot checkpoint to the machine's checklist and to the timeline; one seen before changes nothing.
 * @returns what was reached; undefined for one seen before
 */
export async function recordStamp(db: Database, id: MachineId, stamp: Stamp): Promise<Reached | undefined> {
  return db.transaction().execute(async (tx) => {
    const row = await tx
      .selectFrom('machines')
      .select(['sessionId', 'stamps', 'startedAt', 'driver', 'kind'])
      .where('id', '=', id)
      .forUpdate()
      .executeTakeFirst();
    if (row === undefined || row.stamps.some((seen) => seen.checkpoint === stamp.checkpoint)) {
      return undefined;
    }
    await tx
      .updateTable('machines')
      .set({ stamps: JSON.stringify([...row.stamps, stamp]) })
      .where('id', '=', id)
      .execute();
    const at = new Date(stamp.at);
    const durationMs = row.startedAt === null ? null : Math.max(0, at.getTime() - row.startedAt.getTime());
    await appendEvent(tx, {
      subject: 'machine',
      id,
      kind: 'checkpoint',
      name: stamp.checkpoint,
      at,
      durationMs,
      sessionId: row.sessionId,
      machineId: id,
    });
    return { driver: row.driver, kind: row.kind, durationMs };
  });
}

/** Adds what is no change of state to a machine's timeline. */
export async function recordMachineEvent(
  db: Database,
  row: { id: MachineId; sessionId: SessionId | null },
  event: { kind: 'diagnosis' | 'health'; name: string; detail: string | null },
): Promise<void> {
  const of = { subject: 'machine' as const, id: row.id, sessionId: row.sessionId, machineId: row.id };
  await db.transaction().execute((tx) => appendEvent(tx, { ...of, ...event }));
}

export async function getMachine(db: Database, id: MachineId): Promise<MachineRow | undefined> {
  return db.selectFrom('machines').selectAll().where('id', '=', id).executeTakeFirst();
}

/** The browser machine that was requested for a session. */
export async function findBrowserMachine(
  db: Database,
  sessionId: SessionId,
): Promise<MachineRow | undefined> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('sessionId', '=', sessionId)
    .where('kind', '=', 'browser')
    .executeTakeFirst();
}

/** The person's CLI machine in a realm, unless it is going, gone or failed. */
export async function findCliMachine(
  db: Database,
  userId: UserId,
  realm: Realm,
): Promise<MachineRow | undefined> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('kind', '=', 'cli')
    .where('userId', '=', userId)
    .where('realm', '=', realm)
    .where('state', 'not in', ['destroying', 'destroyed', 'failed'])
    .executeTakeFirst();
}

/** Newest first, at most 200; those gone for more than a day are left out. */
export async function listMachines(db: Database, filter: { userId?: UserId }): Promise<MachineRow[]> {
  let query = db
    .selectFrom('machines')
    .selectAll()
    .where((where) =>
      where.or([where('state', '!=', 'destroyed'), where('endedAt', '>', new Date(Date.now() - 86_400_000))]),
    );
  if (filter.userId !== undefined) query = query.where('userId', '=', filter.userId);
  return query.orderBy('createdAt', 'desc').orderBy('id').limit(200).execute();
}

/** Every machine of a host that the database does not think gone. */
export async function listUnfinishedMachines(db: Database, hostId: string): Promise<MachineRow[]> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('hostId', '=', hostId)
    .where('state', '!=', 'destroyed')
    .execute();
}

/** Failed machines that are kept for a while, those that go last first. */
export async function listKept(db: Database): Promise<MachineRow[]> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('state', '=', 'failed')
    .where('removeAt', 'is not', null)
    .orderBy('removeAt', 'desc')
    .orderBy('id')
    .execute();
}

/** As the public API shows it. */
export function toMachine(row: MachineRow): Machine {
  return {
    id: row.id,
    kind: row.kind,
    realm: row.realm,
    userId: row.userId,
    sessionId: row.sessionId,
    state: row.state,
    driver: row.driver,
    image: row.image,
    address: row.address,
    createdAt: row.createdAt.toISOString(),
    endedAt: row.endedAt?.toISOString() ?? null,
    pooled: row.pooled,
    removeAt: row.state === 'destroyed' ? null : (row.removeAt?.toISOString() ?? null),
    stamps: row.stamps,
    error: row.error,
    health: row.state === 'ready' ? row.health : null,
    actions: [...machineActions(row.kind, row.state)],
  };
}
