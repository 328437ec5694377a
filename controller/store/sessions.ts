/** Login sessions. */
import { sql } from 'kysely';
import type { Session, TimelineEvent } from '../../protocol/api.ts';
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import type { CredentialId, MachineId, ProviderId, SessionId, UserId } from '../../protocol/ids.ts';
import {
  isFinal,
  SESSION_TRANSITIONS,
  type SessionState,
  sessionActions,
} from '../../protocol/lifecycles.ts';
import type { Realm } from '../../protocol/machine.ts';
import type { Database, SessionRow } from './tables.ts';
import { appendEvent } from './timeline.ts';
import { anyOf, refuseTransition, statesBefore, violates } from './transitions.ts';
import { ensureUser } from './users.ts';

export interface NewSession {
  id: SessionId;
  userId: UserId;
  provider: ProviderId;
  account: string;
  realm: Realm;
  expiresAt: Date;
  /** Null: as the setting says. */
  keepFailed?: boolean | null;
}

/** What may be noted on a session beside its state. */
export interface SessionPatch {
  browserMachineId?: MachineId;
  cliMachineId?: MachineId;
  credentialId?: CredentialId;
  loginUrl?: string | null;
  verification?: string;
  error?: ErrorReport;
}

const columns = (patch: SessionPatch) => {
  const { error, ...rest } = patch;
  return { ...rest, ...(error === undefined ? {} : { error: JSON.stringify(error) }) };
};

/**
 * Makes a session, `queued`.
 * @throws login_in_progress while another one of the same person, provider, account and realm has not ended
 */
export async function createSession(db: Database, session: NewSession): Promise<void> {
  try {
    await db.transaction().execute(async (tx) => {
      await ensureUser(tx, session.userId);
      await tx
        .insertInto('loginSessions')
        .values({ ...session, state: 'queued' })
        .execute();
      await appendEvent(tx, {
        subject: 'session',
        id: session.id,
        kind: 'state',
        name: 'queued',
        sessionId: session.id,
        machineId: null,
      });
    });
  } catch (error) {
    if (!violates(error, 'login_sessions_one_live')) throw error;
    throw new PolydevError(
      'login_in_progress',
      `a login of ${session.provider} (${session.account}) is under way for ${session.userId}`,
    );
  }
}

/**
 * Moves a session to a state, in one transaction with its timeline event.
 * @throws illegal_transition, not_found
 */
export async function advanceSession(
  db: Database,
  id: SessionId,
  to: SessionState,
  patch: SessionPatch = {},
  detail?: string,
): Promise<void> {
  await db.transaction().execute(async (tx) => {
    const row = await tx
      .updateTable('loginSessions')
      .set({
        state: to,
        ...columns(patch),
        ...(isFinal(to) ? { endedAt: sql<Date>`clock_timestamp()` } : {}),
      })
      .where('id', '=', id)
      .where('state', '=', anyOf(statesBefore(SESSION_TRANSITIONS, to)))
      .returning('id')
      .executeTakeFirst();
    if (row === undefined) refuseTransition('session', id, (await getSession(tx, id))?.state, to);
    await appendEvent(tx, {
      subject: 'session',
      id,
      kind: 'state',
      name: to,
      detail: detail ?? patch.error?.code ?? null,
      sessionId: id,
      machineId: null,
    });
  });
}

/** Notes facts without a change of state. */
export async function patchSession(db: Database, id: SessionId, patch: SessionPatch): Promise<void> {
  await db.updateTable('loginSessions').set(columns(patch)).where('id', '=', id).execute();
}

/** Notes that a named piece of work is done. `durationMs` in milliseconds. */
export async function recordStep(
  db: Database,
  id: SessionId,
  name: string,
  durationMs: number,
  detail: string | null = null,
): Promise<void> {
  await db.transaction().execute((tx) =>
    appendEvent(tx, {
      subject: 'session',
      id,
      kind: 'step',
      name,
      durationMs: Math.round(durationMs),
      detail,
      sessionId: id,
      machineId: null,
    }),
  );
}

/** Notes that nothing of an ended session runs any more, and says so as the step `clean_up`. Idempotent. */
export async function markCleaned(
  db: Database,
  id: SessionId,
  durationMs: number,
  detail: string | null,
): Promise<void> {
  await db.transaction().execute(async (tx) => {
    const row = await tx
      .updateTable('loginSessions')
      .set({ cleanedAt: sql<Date>`clock_timestamp()` })
      .where('id', '=', id)
      .where('cleanedAt', 'is', null)
      .returning('id')
      .executeTakeFirst();
    if (row === undefined) return;
    await appendEvent(tx, {
      subject: 'session',
      id,
      kind: 'step',
      name: 'clean_up',
      durationMs: Math.round(durationMs),
      detail,
      sessionId: id,
      machineId: null,
    });
  });
}

export async function getSession(db: Database, id: SessionId): Promise<SessionRow | undefined> {
  return db.selectFrom('loginSessions').selectAll().where('id', '=', id).executeTakeFirst();
}

/** Newest first, at most 200. */
export async function listSessions(db: Database, filter: { userId?: UserId }): Promise<SessionRow[]> {
  let query = db.selectFrom('loginSessions').selectAll();
  if (filter.userId !== undefined) query = query.where('userId', '=', filter.userId);
  return query.orderBy('createdAt', 'desc').orderBy('id').limit(200).execute();
}

/** Sessions whose work or clean-up is not over. */
export async function listUnfinishedSessions(db: Database): Promise<SessionRow[]> {
  return db.selectFrom('loginSessions').selectAll().where('cleanedAt', 'is', null).execute();
}

/** As the public API shows it. */
export function toSession(row: SessionRow, timeline: TimelineEvent[]): Session {
  return {
    id: row.id,
    userId: row.userId,
    provider: row.provider,
    account: row.account,
    realm: row.realm,
    state: row.state,
    createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    endedAt: row.endedAt?.toISOString() ?? null,
    browserMachineId: row.browserMachineId,
    cliMachineId: row.cliMachineId,
    credentialId: row.credentialId,
    loginUrl: row.loginUrl,
    liveViewPath: `/api/auth/session/${row.id}/novnc`,
    verification: row.verification,
    error: row.error,
    actions: [...sessionActions(row.state)],
    timeline,
  };
}
