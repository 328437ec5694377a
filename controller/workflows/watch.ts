/** What may end a step from outside: the person cancels or is too late, or the machine ends. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import type { HostMachine } from '../../protocol/host.ts';
import type { MachineId, SessionId } from '../../protocol/ids.ts';
import { isFinal } from '../../protocol/lifecycles.ts';
import type { ExitReport } from '../../protocol/machine.ts';
import type { HostClient } from '../hosts/host-client.ts';
import { getSession } from '../store/sessions.ts';
import type { Context } from './context.ts';

export interface Watched {
  readonly sessionId: SessionId;
  /** The moment after which the person is too late; absent: no longer of interest. */
  readonly expiresAt?: Date;
  /** Its end ends the step. */
  readonly machineId?: MachineId;
}

/**
 * Runs work under a signal that fires, with the named reason, when the session was ended from outside, has expired, or
 * its machine ended. That reason is then also what is thrown, whatever the work made of it.
 */
export async function watched<T>(
  context: Context,
  what: Watched,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const stop = new AbortController();
  const signal = AbortSignal.any([over.signal, stop.signal, context.closing]);
  const watchers = [watchSession(context, what.sessionId, over, signal)];
  if (what.machineId !== undefined) watchers.push(watchExit(context, what.machineId, over, signal));
  const timer =
    what.expiresAt === undefined
      ? undefined
      : setTimeout(
          () => over.abort(new PolydevError('login_expired', 'nobody signed in before the session expired')),
          Math.max(0, what.expiresAt.getTime() - Date.now()),
        );
  try {
    return await work(signal);
  } catch (error) {
    if (over.signal.aborted) throw over.signal.reason;
    // The connection often breaks a moment before the host reports why.
    if (what.machineId !== undefined && PolydevError.from(error).code === 'machine_unreachable') {
      await reportExit(context.host, what.machineId, 1, signal);
    }
    throw error;
  } finally {
    clearTimeout(timer);
    stop.abort();
    await Promise.all(watchers);
  }
}

/**
 * Runs work with a machine under a signal that fires, with `machine_exited`, when it ends: one that is dead does not answer, and
 * may not refuse either. That is then also what is thrown.
 */
export async function whileItRuns<T>(
  context: Context,
  id: MachineId,
  outer: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, over.signal, stop.signal]);
  const watcher = watchExit(context, id, over, signal);
  try {
    return await work(signal);
  } catch (error) {
    if (over.signal.aborted) throw over.signal.reason;
    throw error;
  } finally {
    stop.abort();
    await watcher;
  }
}

async function watchSession(
  context: Context,
  id: SessionId,
  over: AbortController,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const next = context.notifications.next(id, 5_000, signal);
    const row = await getSession(context.db, id).catch(() => undefined);
    if (row !== undefined && isFinal(row.state)) {
      const reason = row.error === null ? undefined : PolydevError.fromReport({ error: row.error });
      over.abort(reason ?? new PolydevError('login_cancelled', `the session is ${row.state}`));
    }
    await next;
  }
}

async function watchExit(
  context: Context,
  id: MachineId,
  over: AbortController,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await reportExit(context.host, id, 50, signal);
    } catch (error) {
      const { code } = PolydevError.from(error);
      if (code === 'machine_exited') over.abort(error);
      // A host service that restarts adopts its machines; until then there is nothing to be learnt.
      else await sleep(300, undefined, { signal }).catch(() => undefined);
    }
  }
}

/**
 * Waits at most `waitSeconds` for the machine's end.
 * @throws machine_exited when it ended or the host does not know it
 */
export async function reportExit(
  host: HostClient,
  id: MachineId,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    const exit = await host.exit(id, waitSeconds, signal);
    if (exit !== null) throw exitError(id, exit);
    // One that was stopped has no exit of its own, and its host answers at once.
    const known = await host.get(id, signal);
    if (known?.state !== 'running') throw endedError(id, known);
  } catch (error) {
    if (signal.aborted || PolydevError.from(error).code !== 'not_found') throw error;
    throw endedError(id, undefined);
  }
}

/** Why a machine that should run does not, from what its host says of it. */
export function endedError(id: MachineId, known: HostMachine | undefined): PolydevError {
  if (known === undefined) {
    return new PolydevError('machine_exited', `the host does not know machine ${id} any more`);
  }
  if (known.exit !== null) return exitError(id, known.exit);
  return new PolydevError('machine_exited', `machine ${id} is ${known.state} at its host`);
}

function exitError(id: MachineId, exit: ExitReport): PolydevError {
  const how = exit.signal === null ? `with code ${exit.code}` : `by ${exit.signal}`;
  const why = exit.oomKilled ? ', out of memory' : '';
  return new PolydevError('machine_exited', `machine ${id} ended ${how}${why} at ${exit.at}`);
}
