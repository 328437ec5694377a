/** Hibernate and resume of one machine. Both can be repeated and meet a machine in any state. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { wake } from '../hosts/wake.ts';
import { isConnectionLost } from '../store/connection.ts';
import { advanceMachine } from '../store/machines.ts';
import { agentOf, type Context, readOperatorSettings } from './context.ts';
import { reach, readMachine } from './machine-steps.ts';
import { restoreCredentials } from './restore.ts';
import { withRetries } from './retries.ts';
import { endedError, whileItRuns } from './watch.ts';

/** Puts a ready machine to sleep. It runs on, with the reason on it, when that fails. */
export async function hibernateMachine(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  const { state } = await readMachine(context, id);
  if (state === 'hibernated') return;
  if (state !== 'hibernating') await reach(context, id, 'hibernating');
  await hibernateHere(context, id, signal);
}

/** The same, unless somebody has used it meanwhile. */
export async function hibernateIdle(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  const { state } = await readMachine(context, id);
  if (state === 'ready') {
    const { hibernateAfterSeconds } = await readOperatorSettings(context);
    const unusedSince = new Date(Date.now() - hibernateAfterSeconds * 1000);
    if (hibernateAfterSeconds === 0 || context.uses.has(id)) return;
    try {
      await advanceMachine(context.db, id, 'hibernating', {}, { detail: 'idle', unusedSince });
    } catch (error) {
      if (PolydevError.from(error).code === 'illegal_transition') return;
      throw error;
    }
  } else if (state !== 'hibernating') return;
  await hibernateHere(context, id, signal);
}

async function hibernateHere(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  try {
    // A host service that starts again has done it or does it then.
    await withRetries(signal, () => context.host.hibernate(id, signal), ['host_unreachable']);
    await reach(context, id, 'hibernated', { address: null });
  } catch (thrown) {
    if (signal.aborted || isConnectionLost(thrown)) throw thrown;
    const error = PolydevError.from(thrown, 'machine_hibernate_failed');
    // The host may have done it, and its answer was lost: the reconciler asks it again.
    if (error.code === 'host_unreachable') throw error;
    await settleSleep(context, id, signal, error);
    throw error;
  }
}

/** Notes what its host says of a machine whose hibernation or resumption was cut off or failed. */
export async function settleSleep(
  context: Context,
  id: MachineId,
  signal: AbortSignal,
  error: PolydevError | null,
): Promise<void> {
  const known = await context.host.get(id, signal);
  const report = error?.toReport();
  const patch = report === undefined ? {} : { error: report };
  const from = ['hibernating', 'resuming'] as const;
  try {
    if (known?.state === 'hibernated') {
      await advanceMachine(context.db, id, 'hibernated', {}, { from: ['hibernating'] });
    } else if (known?.state === 'running') {
      await advanceMachine(context.db, id, 'ready', patch, { from: ['hibernating'] });
    } else {
      // That a dead machine could not be put to sleep is not why it is stopped.
      const died = known === undefined || known.exit !== null;
      const why = died ? endedError(id, known).toReport() : (report ?? endedError(id, known).toReport());
      await advanceMachine(context.db, id, 'stopped', { error: why }, { from });
    }
  } catch (refused) {
    // Somebody else noted it, or it is being resumed.
    if (PolydevError.from(refused).code !== 'illegal_transition') throw refused;
  }
}

/** Longer than any host takes for it. */
const SETTLE_DEADLINE_MS = 250_000;

/** Waits for a hibernation that is under way to end, whoever does it. */
async function afterHibernating(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  const end = performance.now() + SETTLE_DEADLINE_MS;
  while ((await readMachine(context, id)).state === 'hibernating') {
    if (performance.now() > end) await settleSleep(context, id, signal, null);
    else await sleep(100, undefined, { signal });
  }
}

/**
 * Lets a machine that hibernates go on, gives it the time, and brings it to `ready`. What cannot go on is `stopped` with the
 * reason, to be started from its disk.
 * @returns the state it is in then: `ready`, or any other when somebody else was faster or it could not go on
 */
export async function resumeMachine(
  context: Context,
  id: MachineId,
  signal: AbortSignal,
): Promise<'ready' | 'stopped' | 'other'> {
  await afterHibernating(context, id, signal);
  const row = await readMachine(context, id);
  if (row.state === 'hibernated') await reach(context, id, 'resuming').catch(refusal);
  const { state } = await readMachine(context, id);
  if (state !== 'resuming') return state === 'ready' || state === 'stopped' ? state : 'other';
  try {
    const resumed = await withRetries(signal, () => context.host.resume(id, signal), ['host_unreachable']);
    const lacks = await whileItRuns(context, id, signal, async (limit) => {
      await withRetries(limit, () => wake(agentOf(context, id), limit), ['machine_unreachable']);
      // The vault may have got a newer version while it slept.
      return restoreCredentials(context, row, limit);
    });
    await reach(context, id, 'ready', { error: lacks?.toReport() ?? null, address: resumed.address });
    return 'ready';
  } catch (thrown) {
    if (signal.aborted) throw signal.reason;
    if (isConnectionLost(thrown)) throw thrown;
    const error = PolydevError.from(thrown, 'machine_resume_failed');
    if (error.code === 'host_unreachable') throw error;
    context.log.warn({ machine: id, code: error.code }, 'a machine did not resume; it starts from its disk');
    // It may run without answering.
    await context.host.stop(id, signal).catch(() => undefined);
    await reach(context, id, 'stopped', { error: error.toReport() }).catch(refusal);
    return (await readMachine(context, id)).state === 'stopped' ? 'stopped' : 'other';
  }
}

/** Somebody else changed the state meanwhile: the next look tells. */
function refusal(error: unknown): void {
  if (PolydevError.from(error).code !== 'illegal_transition') throw error;
}
