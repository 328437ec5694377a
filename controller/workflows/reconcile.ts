/** Compares the database with the host and with DBOS: nothing stays half done, nothing runs without an owner. */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { PolydevError } from '../../protocol/errors.ts';
import type { HostMachine } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import {
  advanceMachine,
  getMachine,
  listUnfinishedMachines,
  patchMachine,
  touchMachine,
} from '../store/machines.ts';
import { trackOrphans } from '../store/orphans.ts';
import { listUnfinishedSessions } from '../store/sessions.ts';
import type { MachineRow } from '../store/tables.ts';
import { boundKept, isDue } from './clean-up.ts';
import { type Context, readOperatorSettings } from './context.ts';
import { applicationVersion } from './engine.ts';
import { type LoginFlow, loginWorkflowId } from './login.ts';
import { startLoginFlow } from './logins.ts';
import { asking, type MachineFlows } from './machine-flows.ts';
import { destroyMachine, fail, reach } from './machine-steps.ts';
import { settleSleep } from './sleep-steps.ts';
import { endedError } from './watch.ts';

/**
 * At the start of a controller, after DBOS has taken up what it can, and now and then: a session without a workflow gets
 * one, and one whose workflow belongs to another version of the code, or has died, ends as `controller_restarted`.
 * @returns how many are this controller's and go on
 */
export async function reconcileSessions(
  context: Context,
  flows: { login: LoginFlow; abandon: LoginFlow },
): Promise<number> {
  let going = 0;
  for (const session of await listUnfinishedSessions(context.db)) {
    const workflow = await DBOS.getWorkflowStatus(loginWorkflowId(session.id));
    if (workflow === null && session.state === 'queued') {
      await startLoginFlow(flows.login, session.id);
      continue;
    }
    const active = workflow !== null && ['PENDING', 'ENQUEUED', 'DELAYED'].includes(workflow.status);
    // Another controller's work is its own until it starts again.
    if (active && workflow.executorId !== DBOS.executorID) continue;
    if (active && workflow.applicationVersion === applicationVersion()) {
      going += 1;
      continue;
    }
    if (active) await DBOS.cancelWorkflow(workflow.workflowID);
    context.log.warn({ session: session.id, state: session.state }, 'a session could not be taken up');
    context.meters.recovered('session_given_up');
    await DBOS.startWorkflow(flows.abandon, { workflowID: `abandon-${session.id}` })(session.id);
  }
  return going;
}

/** A start of this age is not under way any more: its deadlines are over. */
const STALE_MS = 600_000;
/** An end of this age is asked for again, beside whoever may still wait for it: the host does it once. */
const DESTROY_AGAIN_MS = 10_000;

/** Once: the machines of the host against the rows. Every finding is corrected or named on the machine. */
export async function reconcileMachines(context: Context, flows: MachineFlows): Promise<void> {
  for (const id of context.uses.ids()) await touchMachine(context.db, id);
  const rows = await listUnfinishedMachines(context.db, context.host.id);
  const known = new Map((await context.host.list(AbortSignal.timeout(10_000))).map((one) => [one.id, one]));
  for (const row of rows) {
    if (context.closing.aborted) return;
    await reconcileMachine(context, row, known.get(row.id), flows).catch((error: unknown) =>
      context.log.warn(
        { machine: row.id, err: PolydevError.from(error) },
        'a machine could not be reconciled',
      ),
    );
    known.delete(row.id);
  }
  const settings = await readOperatorSettings(context);
  const strangers: MachineId[] = [];
  for (const id of known.keys()) {
    if (context.closing.aborted) return;
    // Rows were read before the host was asked: one that was made in between is not unknown.
    const row = await getMachine(context.db, id);
    if (row === undefined) strangers.push(id);
    else if (row.state === 'destroyed')
      await destroyUnowned(context, id, 'is destroyed, and its host has it');
  }
  // Stays for a while: the database may be older than the machine, which may be somebody's.
  const since = Date.now() - settings.orphanGraceSeconds * 1000;
  for (const { id, seenAt } of await trackOrphans(context.db, context.host.id, strangers)) {
    if (context.closing.aborted) return;
    if (seenAt.getTime() <= since) await destroyUnowned(context, id, 'is in no database');
  }
  await boundKept(context, settings);
}

/** Starts the hibernation of one that nobody has used for the set time; what becomes of it is noted on it. */
async function hibernateWhenIdle(context: Context, row: MachineRow, flows: MachineFlows): Promise<void> {
  if (context.uses.has(row.id)) return;
  const { hibernateAfterSeconds } = await readOperatorSettings(context);
  const unused = Date.now() - row.usedAt.getTime();
  if (hibernateAfterSeconds === 0 || unused < hibernateAfterSeconds * 1000) return;
  // Once for each time that it is idle, also when it fails.
  const workflowID = `hibernate-idle-${row.id}-${row.usedAt.getTime()}`;
  await DBOS.startWorkflow(flows.hibernateIdle, { workflowID })(asking(context, row));
}

async function destroyUnowned(context: Context, id: MachineId, why: string): Promise<void> {
  context.log.warn({ machine: id, why }, 'a machine that nobody owns is destroyed');
  context.meters.recovered('machine_unowned');
  await context.host
    .destroy(id, context.closing)
    .catch((error: unknown) => context.log.warn({ machine: id, err: PolydevError.from(error) }, 'it stays'));
}

async function reconcileMachine(
  context: Context,
  row: MachineRow,
  known: HostMachine | undefined,
  flows: MachineFlows,
): Promise<void> {
  const age = Date.now() - row.stateAt.getTime();
  switch (row.state) {
    case 'stopped': {
      // Its next start gets an empty disk, and the person may know why.
      if (known === undefined && row.error === null) {
        await patchMachine(context.db, row.id, { error: endedError(row.id, known).toReport() });
      }
      if (known?.state !== 'running' && known?.state !== 'hibernated') return;
      // Its stop or its start did not go as it should. The row was read before the host was asked: it may start by now.
      const now = await getMachine(context.db, row.id);
      if (now?.state === 'stopped') await context.host.stop(row.id, context.closing);
      return;
    }
    case 'ready':
      if (row.pooled && known === undefined) {
        // Its host was stopped in order, and browser machines go with it. It was nobody's: no failure.
        await destroyMachine(context, row.id, context.closing);
      } else if (known === undefined || known.state === 'exited') {
        context.meters.recovered('machine_lost');
        await fail(context, row.id, endedError(row.id, known), [row.state]);
      } else if (known.state === 'stopped') {
        // Stopped by a controller that was killed before it could note it, or just now.
        await reach(context, row.id, 'stopped').catch(() => undefined);
      } else if (known.state === 'hibernated') {
        // Or it is being noted just now.
        await reach(context, row.id, 'hibernating').catch(() => undefined);
        await settleSleep(context, row.id, context.closing, null);
      } else if (known.state === 'running' && known.sleep !== null && row.kind === 'cli') {
        await hibernateWhenIdle(context, row, flows);
      }
      return;
    case 'hibernated':
      if (known?.state === 'hibernated') return;
      // The host was started again, and with it went what was frozen; or it is being resumed just now.
      if (known === undefined || known.state !== 'running') {
        await advanceMachine(context.db, row.id, 'stopped', {}, { from: ['hibernated'] }).catch(
          () => undefined,
        );
      }
      return;
    case 'hibernating':
    case 'resuming':
      if (age > STALE_MS) await settleSleep(context, row.id, context.closing, null);
      return;
    case 'requested':
    case 'creating':
    case 'booting':
      if (age > STALE_MS) {
        context.meters.recovered('start_given_up');
        const message = `the start of machine ${row.id} was given up by a controller that is gone`;
        await fail(context, row.id, new PolydevError('controller_restarted', message), [row.state]);
      }
      return;
    case 'destroying':
      if (age > DESTROY_AGAIN_MS) await destroyMachine(context, row.id, context.closing);
      return;
    case 'failed': {
      // Only CLI machines of earlier versions fail: they keep their disk until somebody decides, but do not run. A
      // browser machine has nothing to keep.
      if (row.kind === 'cli' && known?.state === 'running') await context.host.stop(row.id, context.closing);
      if (row.kind === 'browser' && (await isDue(context, row))) {
        await destroyMachine(context, row.id, context.closing);
      }
      return;
    }
    case 'destroyed':
      return;
  }
}
