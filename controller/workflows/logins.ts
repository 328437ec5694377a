/** Login sessions as `api/` uses them: rows are read here, the work is done by the workflow. */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { PolydevError } from '../../protocol/errors.ts';
import { newSessionId, type SessionId, type UserId } from '../../protocol/ids.ts';
import { isFinal } from '../../protocol/lifecycles.ts';
import type { LoginRequest, Logins } from '../services.ts';
import { recordAudit } from '../store/audit.ts';
import { checkQuota } from '../store/machines.ts';
import { advanceSession, createSession, getSession, listSessions, toSession } from '../store/sessions.ts';
import type { SessionRow } from '../store/tables.ts';
import { readSessionEvents, readTimelines } from '../store/timeline.ts';
import { agentOf, type Context, readOperatorSettings } from './context.ts';
import { type LoginFlow, loginWorkflowId } from './login.ts';

export function createLogins(context: Context, flow: LoginFlow): Logins {
  const { db } = context;
  const read = async (id: SessionId): Promise<SessionRow> => {
    const row = await getSession(db, id);
    if (row === undefined) throw new PolydevError('not_found', `there is no session ${id}`);
    return row;
  };
  const show = async (id: SessionId) => toSession(await read(id), await readSessionEvents(db, id, 0));

  return {
    async start(request: LoginRequest) {
      const id = newSessionId();
      const { userId, provider, account, realm } = request;
      const expiresAt = new Date(Date.now() + request.expiresInSeconds * 1000);
      await refuseOverQuota(context, userId);
      const keepFailed = request.keepFailed ?? null;
      await createSession(db, { id, userId, provider, account, realm, expiresAt, keepFailed });
      await recordAudit(db, { who: userId, action: 'login.start', target: id });
      await startLoginFlow(flow, id);
      return show(id);
    },

    async get(id) {
      const row = await getSession(db, id);
      return row === undefined ? undefined : toSession(row, await readSessionEvents(db, id, 0));
    },

    async list(filter) {
      const rows = await listSessions(db, filter);
      const timelines = await readTimelines(
        db,
        rows.map((row) => row.id),
      );
      return rows.map((row) => toSession(row, timelines.get(row.id) ?? []));
    },

    async input(id, text) {
      const row = await read(id);
      if (row.state !== 'waiting_for_person' || row.browserMachineId === null) {
        throw new PolydevError('conflict', `session ${id} is ${row.state} and takes no input`);
      }
      await agentOf(context, row.browserMachineId).loginInput(text, AbortSignal.timeout(10_000));
    },

    async cancel(id) {
      const row = await read(id);
      const refusal = () => new PolydevError('conflict', `session ${id} is ${row.state} already`);
      if (isFinal(row.state)) throw refusal();
      try {
        const error = new PolydevError('login_cancelled', 'the session was cancelled').toReport();
        await advanceSession(db, id, 'cancelled', { error });
      } catch (error) {
        if (PolydevError.from(error).code === 'illegal_transition') throw refusal();
        throw error;
      }
      await recordAudit(db, { who: row.userId, action: 'login.cancel', target: id });
      return show(id);
    },

    async *events(id, afterSeq, signal) {
      await read(id);
      const left = new AbortController();
      const over = AbortSignal.any([signal, left.signal, context.closing]);
      let seen = afterSeq;
      try {
        while (!over.aborted) {
          const next = context.notifications.next(id, 10_000, over);
          const row = await read(id);
          for (const event of await readSessionEvents(db, id, seen)) {
            if (over.aborted) return;
            seen = event.seq;
            yield event;
          }
          if (isFinal(row.state) && row.cleanedAt !== null) return;
          await next;
        }
      } finally {
        left.abort();
      }
    },
  };
}

/** Says at once what the session would fail with a moment later. */
async function refuseOverQuota(context: Context, userId: UserId): Promise<void> {
  const { machinesPerPerson: machines, diskMiBPerPerson: diskMiB } = await readOperatorSettings(context);
  const wanted = context.settings.limits.browser.diskMiB ?? 0;
  await context.db.transaction().execute((tx) => checkQuota(tx, userId, { machines, diskMiB }, wanted));
}

/** Starts the workflow of a session, once, however often it is called. */
export async function startLoginFlow(flow: LoginFlow, id: SessionId): Promise<void> {
  await DBOS.startWorkflow(flow, { workflowID: loginWorkflowId(id) })(id);
}
