/** The timeline: every transition, boot checkpoint and named step, in the order in which they were committed. */
import { sql } from 'kysely';
import type { TimelineEvent } from '../../protocol/api.ts';
import type { MachineId, SessionId } from '../../protocol/ids.ts';
import type { Database, TimelineTable, Tx } from './tables.ts';

/** Channel of NOTIFY; the payload is a TimelineNotice as JSON. */
export const TIMELINE_CHANNEL = 'polydev_timeline';

export interface TimelineNotice {
  readonly seq: number;
  readonly sessionId: SessionId | null;
  readonly machineId: MachineId | null;
}

export interface NewEvent {
  subject: TimelineEvent['subject'];
  id: string;
  kind: TimelineEvent['kind'];
  name: string;
  /** When it happened; default: now, by the database's clock. */
  at?: Date;
  durationMs?: number | null;
  detail?: string | null;
  sessionId: SessionId | null;
  machineId: MachineId | null;
}

/**
 * Adds an event in the caller's transaction and announces it at commit. The events of one session (or of one machine
 * without a session) get their numbers in commit order, so a reader that asks for "after n" misses none.
 */
export async function appendEvent(tx: Tx, event: NewEvent): Promise<void> {
  const key = event.sessionId ?? event.id;
  await sql`SELECT pg_advisory_xact_lock(7413, hashtext(${key}))`.execute(tx);
  const { at, ...rest } = event;
  const { seq } = await tx
    .insertInto('timeline')
    .values({ durationMs: null, detail: null, ...rest, ...(at === undefined ? {} : { at }) })
    .returning('seq')
    .executeTakeFirstOrThrow();
  const notice: TimelineNotice = {
    seq: Number(seq),
    sessionId: event.sessionId,
    machineId: event.machineId,
  };
  await sql`SELECT pg_notify(${TIMELINE_CHANNEL}, ${JSON.stringify(notice)})`.execute(tx);
}

type Row = Omit<TimelineTable, 'seq' | 'at'> & { seq: string; at: Date };

function toEvent(row: Row): TimelineEvent {
  return {
    seq: Number(row.seq),
    at: row.at.toISOString(),
    subject: row.subject,
    id: row.id,
    kind: row.kind,
    name: row.name,
    durationMs: row.durationMs,
    detail: row.detail,
  };
}

/** The events of a session and of the machines started for it, oldest first, at most 1000. */
export async function readSessionEvents(
  db: Database,
  sessionId: SessionId,
  afterSeq: number,
): Promise<TimelineEvent[]> {
  const rows = await db
    .selectFrom('timeline')
    .selectAll()
    .where('sessionId', '=', sessionId)
    .where('seq', '>', String(afterSeq))
    .orderBy('seq')
    .limit(1000)
    .execute();
  return rows.map(toEvent);
}

/** The timelines of several sessions, by session id. */
export async function readTimelines(
  db: Database,
  sessionIds: readonly SessionId[],
): Promise<Map<SessionId, TimelineEvent[]>> {
  const timelines = new Map<SessionId, TimelineEvent[]>(sessionIds.map((id) => [id, []]));
  if (sessionIds.length === 0) return timelines;
  const rows = await db
    .selectFrom('timeline')
    .selectAll()
    .where('sessionId', 'in', sessionIds)
    .orderBy('seq')
    .execute();
  for (const row of rows) {
    if (row.sessionId !== null) timelines.get(row.sessionId)?.push(toEvent(row));
  }
  return timelines;
}

/** What happened to one machine, oldest first, at most 1000. */
export async function readMachineEvents(db: Database, machineId: MachineId): Promise<TimelineEvent[]> {
  const rows = await db
    .selectFrom('timeline')
    .selectAll()
    .where('machineId', '=', machineId)
    .orderBy('seq')
    .limit(1000)
    .execute();
  return rows.map(toEvent);
}
