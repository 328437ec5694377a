/** Machines as `api/` uses them. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { DBOS } from '@dbos-inc/dbos-sdk';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { type MachineAction, machineActions } from '../../protocol/lifecycles.ts';
import type { Machines } from '../services.ts';
import { recordAudit } from '../store/audit.ts';
import { getMachine, listMachines, toMachine, touchMachine } from '../store/machines.ts';
import { getSession } from '../store/sessions.ts';
import type { MachineRow } from '../store/tables.ts';
import { agentOf, type Context } from './context.ts';
import { LONGEST_BOOT_MS } from './deadlines.ts';
import { asking, type MachineFlow, type MachineFlows } from './machine-flows.ts';
import { readMachine } from './machine-steps.ts';
import { unwrap } from './result.ts';

/** Longer than any of them takes by its own deadlines: a boot, or a stop of an emulated guest and what is taken back afterwards. */
const FLOW_DEADLINE_MS = LONGEST_BOOT_MS + 120_000;

type MachineFlowName = 'start' | 'resume' | 'hibernate' | 'stop' | 'destroy';

/** Runs a machine's workflow to its end. */
export async function runMachineFlow(
  context: Context,
  flow: MachineFlow,
  name: MachineFlowName,
  row: MachineRow,
): Promise<void> {
  const { id } = row;
  const workflowID = `${name}-${id}-${randomUUID()}`;
  const handle = await DBOS.startWorkflow(flow, { workflowID })(asking(context, row));
  const result = await Promise.race([handle.getResult(), sleep(FLOW_DEADLINE_MS, null, { ref: false })]);
  if (result === null) {
    throw new PolydevError('machine_unreachable', `machine ${id}: ${name} is still under way`);
  }
  unwrap(result);
}

export function createMachines(context: Context, flows: MachineFlows): Machines {
  const { db, host } = context;
  const act = async (id: MachineId, action: Exclude<MachineAction, 'open_terminal'>) => {
    const row = await readMachine(context, id);
    // A destroy that is under way or over is no mistake of the caller.
    const settled = action === 'destroy' && (row.state === 'destroying' || row.state === 'destroyed');
    if (!settled && !machineActions(row.kind, row.state).includes(action)) {
      throw new PolydevError('conflict', `machine ${id} is ${row.state}: ${action} does not fit`);
    }
    if (row.state !== 'destroyed') {
      await recordAudit(db, { who: row.userId, action: `machine.${action}`, target: id });
      await runMachineFlow(context, flows[action === 'resume' ? 'start' : action], action, row);
    }
    return toMachine(await readMachine(context, id));
  };
  /** A CLI machine that is ready: started, or woken, if it was not. It counts as used now. */
  const readyCliMachine = async (id: MachineId): Promise<MachineRow> => {
    const row = (await touchMachine(db, id)) ?? (await readMachine(context, id));
    if (row.kind !== 'cli') throw new PolydevError('conflict', `machine ${id} is no CLI machine`);
    if (row.state === 'ready') return row;
    if (['destroying', 'destroyed', 'failed'].includes(row.state)) {
      throw new PolydevError('conflict', `machine ${id} is ${row.state}`);
    }
    await runMachineFlow(context, flows.start, 'start', row);
    return readMachine(context, id);
  };

  return {
    list: async (filter) => (await listMachines(db, filter)).map(toMachine),
    async get(id) {
      const row = await getMachine(db, id);
      return row === undefined ? undefined : toMachine(row);
    },
    async console(id) {
      await readMachine(context, id);
      return host.console(id);
    },
    async evidence(id) {
      await readMachine(context, id);
      return host.evidence(id);
    },
    async evidenceFile(id, name) {
      await readMachine(context, id);
      return host.evidenceFile(id, name);
    },
    async diagnosis(id) {
      const row = await readMachine(context, id);
      const { error, stamps } = row;
      try {
        return await host.diagnose(id, { error, stamps: [...stamps] });
      } catch (thrown) {
        // A machine that its host never had, or of which nothing is kept any more.
        if (PolydevError.from(thrown).code === 'not_found') return null;
        throw thrown;
      }
    },
    start: (id) => act(id, 'start'),
    hibernate: (id) => act(id, 'hibernate'),
    resume: (id) => act(id, 'resume'),
    stop: (id) => act(id, 'stop'),
    destroy: (id) => act(id, 'destroy'),

    async desktop(sessionId) {
      const session = await getSession(db, sessionId);
      if (session === undefined) throw new PolydevError('not_found', `there is no session ${sessionId}`);
      const row =
        session.browserMachineId === null ? undefined : await getMachine(db, session.browserMachineId);
      if (row?.state !== 'ready') {
        throw new PolydevError(
          'conflict',
          `session ${sessionId} is ${session.state} and has no live desktop`,
        );
      }
      return agentOf(context, row.id).desktop();
    },

    async terminal(id, size) {
      using used = new DisposableStack();
      used.use(context.uses.begin(id));
      const row = await readyCliMachine(id);
      const agent = agentOf(context, row.id);
      const terminal = await agent.createTerminal(size);
      const close = () => agent.deleteTerminal(terminal);
      try {
        const stream = await agent.terminalStream(terminal);
        const use = used.move();
        stream.once('close', () => use.dispose());
        return { stream, resize: (next) => agent.resizeTerminal(terminal, next), close };
      } catch (error) {
        await close().catch((problem: unknown) =>
          context.log.warn({ machine: id, code: PolydevError.from(problem).code }, 'a terminal is left over'),
        );
        throw error;
      }
    },

    async *exec(id, request, signal) {
      using _used = context.uses.begin(id);
      const row = await readyCliMachine(id);
      yield* agentOf(context, row.id).exec(request, signal);
    },
  };
}
