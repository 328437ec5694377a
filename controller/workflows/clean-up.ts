/** What becomes of the machine of a login that is over: it goes at once, or stays for a while so that somebody can look. */
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import type { SessionState } from '../../protocol/lifecycles.ts';
import type { Settings } from '../../protocol/settings.ts';
import { advanceMachine, findBrowserMachine, listKept, patchMachine } from '../store/machines.ts';
import { getSession } from '../store/sessions.ts';
import type { MachineRow, SessionRow } from '../store/tables.ts';
import { readSessionEvents } from '../store/timeline.ts';
import { agentOf, type Context, readOperatorSettings } from './context.ts';
import { destroyMachine } from './machine-steps.ts';
import { preserve } from './preserve.ts';

const CREDENTIAL_DEADLINE_MS = 10_000;
/** Ends that somebody may want to look into. A person who cancels knows why. */
const IN_QUESTION: readonly SessionState[] = ['failed', 'expired'];

/** How long the machine of an ended session stays, in seconds. */
function staySeconds(session: SessionRow, settings: Settings): number {
  if (!IN_QUESTION.includes(session.state) || settings.keepAtMost === 0) return 0;
  return (session.keepFailed ?? settings.keepFailed) ? settings.keepForSeconds : settings.failedGraceSeconds;
}

/**
 * Keeps the browser machine of an ended session when it shall stay: `failed`, with the time when it goes. It runs on if it
 * does, and holds no credential any more. Can be repeated.
 * @returns false when it shall go at once: also when it may hold a credential that cannot be removed
 */
export async function keepForAWhile(context: Context, session: SessionRow): Promise<boolean> {
  const machine = await findBrowserMachine(context.db, session.id);
  if (machine === undefined || machine.state === 'destroying' || machine.state === 'destroyed') return false;
  if (machine.removeAt !== null) return true;
  const seconds = staySeconds(session, await readOperatorSettings(context));
  if (seconds === 0) return false;
  const error = session.error ?? machine.error;
  await keepLastWords(context, machine, error);
  if (!(await withoutCredential(context, session, machine))) {
    context.log.warn({ machine: machine.id }, 'not kept: it may hold a credential that cannot be removed');
    return false;
  }
  const removeAt = new Date(Date.now() + seconds * 1000);
  if (machine.state === 'failed') await patchMachine(context.db, machine.id, { removeAt });
  else await advanceMachine(context.db, machine.id, 'failed', { error, removeAt });
  context.log.info({ machine: machine.id, removeAt }, 'a failed machine is kept for a while');
  return true;
}

/** A machine that failed to boot has said everything already; the person may have typed a password since: no picture. */
async function keepLastWords(
  context: Context,
  machine: MachineRow,
  error: ErrorReport | null,
): Promise<void> {
  if (machine.state !== 'ready' || machine.error !== null) return;
  await preserve(context, machine.id, {
    error: error === null ? null : PolydevError.fromReport({ error }),
    screenshot: false,
  });
}

/** One machine at a time holds a credential, and one that is kept never does. */
async function withoutCredential(
  context: Context,
  session: SessionRow,
  machine: MachineRow,
): Promise<boolean> {
  const limit = AbortSignal.any([context.closing, AbortSignal.timeout(CREDENTIAL_DEADLINE_MS)]);
  try {
    if ((await context.host.get(machine.id, limit)) === undefined) return true;
    await agentOf(context, machine.id).deleteCredential(session.provider, limit);
    return true;
  } catch (error) {
    if (context.closing.aborted) throw error;
    // Before the person was asked to sign in there can be none.
    const events = await readSessionEvents(context.db, session.id, 0);
    return !events.some(({ kind, name }) => kind === 'state' && name === 'waiting_for_person');
  }
}

/** Whether a failed browser machine goes now: its session is over and its time too. */
export async function isDue(context: Context, row: MachineRow): Promise<boolean> {
  const session = row.sessionId === null ? undefined : await getSession(context.db, row.sessionId);
  if (session !== undefined && session.cleanedAt === null) return false;
  return row.removeAt === null || row.removeAt.getTime() <= Date.now();
}

/** Removes kept machines of this host beyond the bound, those first that would go first anyway. */
export async function boundKept(context: Context, settings: Settings): Promise<void> {
  const kept = (await listKept(context.db)).filter(({ hostId }) => hostId === context.host.id);
  for (const { id } of kept.slice(settings.keepAtMost)) {
    context.log.info({ machine: id }, 'more failed machines are kept than the setting allows: this one goes');
    await destroyMachine(context, id, context.closing);
  }
}
