/** What is done with one machine: boot, stop, destroy. All can be repeated and meet a machine in any state. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import type { Stamp } from '../../protocol/machine.ts';
import { readBootTimes } from '../store/boot-times.ts';
import { isConnectionLost } from '../store/connection.ts';
import {
  advanceMachine,
  getMachine,
  type MachinePatch,
  patchMachine,
  recordStamp,
  touchMachine,
} from '../store/machines.ts';
import type { MachineRow } from '../store/tables.ts';
import { type BootToFollow, followBoot } from './boot.ts';
import { agentOfRow, type Context, poolToken } from './context.ts';
import { deadlineOf, type Load } from './deadlines.ts';
import { preserve } from './preserve.ts';
import { restoreCredentials } from './restore.ts';
import { withRetries } from './retries.ts';
import { resumeMachine } from './sleep-steps.ts';
import { endedError } from './watch.ts';

/** @throws not_found */
export async function readMachine(context: Context, id: MachineId): Promise<MachineRow> {
  const row = await getMachine(context.db, id);
  if (row === undefined) throw new PolydevError('not_found', `there is no machine ${id}`);
  return row;
}

/** Goes to a state, content when somebody else got the machine there first. */
export async function reach(
  context: Context,
  id: MachineId,
  to: MachineState,
  patch: MachinePatch = {},
): Promise<void> {
  try {
    await advanceMachine(context.db, id, to, patch);
  } catch (error) {
    if (PolydevError.from(error).code !== 'illegal_transition') throw error;
    if ((await readMachine(context, id)).state !== to) throw error;
  }
}

/** As often it may be outrun. */
const BESIDE_OTHERS = 4;
const ENDED: readonly MachineState[] = ['failed', 'destroying', 'destroyed'];

/** How long a machine that did not start may take to be stopped; the reconciler goes on trying. */
const STOP_DEADLINE_MS = 15_000;

/**
 * Notes why a machine does not run, if it still is in one of the states `from`. A browser machine is `failed`. A CLI
 * machine is `stopped` with the error: its disk is the person's, and the next start may go well.
 */
export async function fail(
  context: Context,
  id: MachineId,
  error: PolydevError,
  from: readonly MachineState[],
): Promise<void> {
  const { kind, state } = await readMachine(context, id);
  if (!from.includes(state)) return;
  if (kind === 'cli') await stopHalfStarted(context, id);
  try {
    const to = kind === 'cli' ? 'stopped' : 'failed';
    await advanceMachine(context.db, id, to, { error: error.toReport() }, { from });
  } catch (refused) {
    if (PolydevError.from(refused).code !== 'illegal_transition') throw refused;
  }
}

/** What may run of it is stopped at its host, as far as the host answers. */
async function stopHalfStarted(context: Context, id: MachineId): Promise<void> {
  try {
    const limit = AbortSignal.any([context.closing, AbortSignal.timeout(STOP_DEADLINE_MS)]);
    const known = await context.host.get(id, limit);
    if (known?.state === 'running') await context.host.stop(id, limit);
  } catch (error) {
    context.log.warn({ machine: id, code: PolydevError.from(error).code }, 'a machine could not be stopped');
  }
}

/**
 * Brings a requested, stopped, hibernated or half-started machine to `ready`; a ready one is only looked at. It counts as
 * used, so that it does not hibernate for being idle a moment later.
 * @throws machine_start_failed and what else the host names; machine_exited; machine_boot_stalled naming
 * the checkpoint whose deadline passed; what the agent gives as the reason why the boot cannot go on. The machine is then
 * `failed`, or `stopped` if it is a CLI machine, with the same error; but not when the signal fired.
 */
export async function bootMachine(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  try {
    // A host service that starts again has the machine, or takes back what it had begun: asking again is right for both.
    await withRetries(signal, () => bootBesideOthers(context, id, signal), ['host_unreachable']);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    // Says nothing about the machine: the step is repeated.
    if (isConnectionLost(error)) throw error;
    const named = PolydevError.from(error);
    const { state } = await readMachine(context, id);
    // The host being away for a moment says nothing about a machine that was ready.
    const broken =
      state === 'ready'
        ? named.code === 'machine_exited'
        : ['requested', 'creating', 'booting'].includes(state);
    if (broken) {
      await preserve(context, id, { error: named, screenshot: state !== 'ready' });
      await fail(context, id, named, [state]);
    }
    throw named;
  }
}

/** Somebody else who starts the machine at the same moment may be a step ahead: then the boot goes on from where it is now. */
async function bootBesideOthers(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  for (let left = BESIDE_OTHERS; ; left--) {
    try {
      return await boot(context, id, signal);
    } catch (error) {
      const outrun = PolydevError.from(error).code === 'illegal_transition';
      const over = ENDED.includes((await readMachine(context, id)).state);
      if (!outrun || over || left === 0) throw error;
    }
  }
}

async function boot(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  let state: MachineState = (await touchMachine(context.db, id))?.state ?? 'destroyed';
  if (['hibernating', 'hibernated', 'resuming'].includes(state)) {
    await resumeMachine(context, id, signal);
    state = (await readMachine(context, id)).state;
  }
  if (state === 'ready') {
    const known = await context.host.get(id, signal);
    if (known?.state === 'running') return;
    if (known?.state === 'hibernated') {
      throw new PolydevError('conflict', `machine ${id} falls asleep just now; try again`);
    }
    // The host was stopped in order and has kept the disk.
    if (known?.state !== 'stopped') throw endedError(id, known);
    await reach(context, id, 'stopped');
    state = 'stopped';
  }
  if (state === 'requested' || state === 'stopped') {
    await reach(context, id, 'creating');
    state = 'creating';
  }
  if (state === 'creating') {
    const row = await readMachine(context, id);
    const made = await context.host.put(
      {
        id,
        kind: row.kind,
        realm: row.realm,
        limits: row.limits,
        display: row.display,
        agentTokenHash: (row.pooled ? poolToken(context, id) : context.vault.deriveMachineToken(id)).hash,
      },
      signal,
    );
    await patchMachine(context.db, id, { driver: made.driver, image: made.image, address: made.address });
    for (const stamp of made.stamps) await stamped(context, id, stamp);
    if (made.state !== 'running') throw endedError(id, made);
    await reach(context, id, 'booting');
    state = 'booting';
  }
  if (state !== 'booting') {
    throw new PolydevError('illegal_transition', `machine ${id} is ${state} and cannot boot`);
  }
  const started = await readMachine(context, id);
  await followBoot({
    host: context.host,
    agent: agentOfRow(context, started),
    kind: started.kind,
    startedAt: started.startedAt ?? new Date(),
    deadline: await deadlinesFor(context, started, signal),
    agentVersion: await verifiedAgent(context, started, signal),
    before: started.stamps,
    onStamp: (stamp) => stamped(context, id, stamp),
    signal,
  });
  const booted = await context.host.get(id, signal);
  for (const stamp of booted?.stamps ?? []) await stamped(context, id, stamp);
  const row = await readMachine(context, id);
  const lacks = row.kind === 'cli' ? await restoreCredentials(context, row, signal) : null;
  await reach(context, id, 'ready', {
    error: lacks?.toReport() ?? null,
    ...(booted === undefined ? {} : { address: booted.address }),
  });
}

/** A checkpoint was reached: into the checklist, the timeline and the metrics. */
async function stamped(context: Context, id: MachineId, stamp: Stamp): Promise<void> {
  const reached = await recordStamp(context.db, id, stamp);
  if (reached === undefined || reached.durationMs === null) return;
  const { driver, kind, durationMs } = reached;
  context.meters.checkpoint({ driver, kind, checkpoint: stamp.checkpoint, durationMs });
}

/** How long an answer about the host's load is good for, ms. */
const LOAD_FRESH_MS = 2_000;

/** The deadlines of a boot. A host that is away for a moment is no reason to give the boot up: its load is then unknown. */
async function deadlinesFor(
  context: Context,
  { id, hostId, driver, kind }: MachineRow,
  signal: AbortSignal,
): Promise<BootToFollow['deadline']> {
  const known = await context.host.get(id, signal).catch(() => undefined);
  const rules = {
    usualMs: context.settings.bootDeadlineMs,
    slowdown: known?.slowdown ?? 1,
    measured: await readBootTimes(context.db, { hostId, driver: driver ?? known?.driver ?? 'unknown', kind }),
  };
  let load: { value: Promise<Load | undefined>; at: number } | undefined;
  return async (checkpoint) => {
    if (load === undefined || performance.now() - load.at > LOAD_FRESH_MS) {
      const asked = context.host.health(AbortSignal.any([signal, AbortSignal.timeout(5_000)]));
      const value = asked.then(
        (health) => health.load,
        () => undefined,
      );
      load = { value, at: performance.now() };
    }
    return deadlineOf(rules, checkpoint, await load.value);
  };
}

/** The version of the agent that this machine's image was verified with; null when that is not known. */
async function verifiedAgent(
  context: Context,
  { image }: MachineRow,
  signal: AbortSignal,
): Promise<string | null> {
  if (image === null) return null;
  const summary = await context.host.image(image, signal).catch(() => undefined);
  return summary?.agentVersion ?? null;
}

/** Stops a machine that is ready or hibernates; its disk stays. */
export async function stopMachine(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  const { state } = await readMachine(context, id);
  if (state === 'stopped') return;
  if (state !== 'ready' && state !== 'hibernated') {
    throw new PolydevError('illegal_transition', `machine ${id} is ${state} and cannot be stopped`);
  }
  await context.host.stop(id, signal);
  await reach(context, id, 'stopped');
}

/** How long the end of a machine is waited for before others are told; the reconciler goes on trying. */
const DESTROY_ATTEMPTS = 12;

/**
 * Destroys a machine and waits until the host says that it is gone. The evidence stays.
 * @throws host_unreachable and what else the host names, after several attempts; the machine stays `destroying`
 */
export async function destroyMachine(context: Context, id: MachineId, signal: AbortSignal): Promise<void> {
  const { state } = await readMachine(context, id);
  if (state === 'destroyed') return;
  if (state !== 'destroying') await reach(context, id, 'destroying');
  for (let attempt = 1; ; attempt++) {
    try {
      await context.host.destroy(id, signal);
      break;
    } catch (error) {
      if (signal.aborted || attempt >= DESTROY_ATTEMPTS) throw error;
      context.log.warn({ machine: id, code: PolydevError.from(error).code }, 'destroying a machine failed');
      await sleep(Math.min(250 * 2 ** attempt, 1_500), undefined, { signal });
    }
  }
  await reach(context, id, 'destroyed');
}
