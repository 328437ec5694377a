/** Start, stop, hibernate and destroy of a machine, as durable workflows of one step. */
import { DBOS } from '@dbos-inc/dbos-sdk';
import type { MachineId } from '../../protocol/ids.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import { getMachine } from '../store/machines.ts';
import type { MachineRow } from '../store/tables.ts';
import type { Context } from './context.ts';
import { bootMachine, destroyMachine, stopMachine } from './machine-steps.ts';
import { attempt, type StepResult } from './result.ts';
import { hibernateIdle, hibernateMachine } from './sleep-steps.ts';

/** What is asked for, when, and of which controller: input of a workflow, so it outlives the controller. */
export interface Asked {
  readonly id: MachineId;
  /** Of the machine, as it was known then. */
  readonly revision: number;
  /** When the controller that was asked began: ISO 8601. */
  readonly controller: string;
}

export type MachineFlow = (asked: Asked) => Promise<StepResult>;

export interface MachineFlows {
  /** From any state: one that hibernates goes on where it was. */
  readonly start: MachineFlow;
  readonly hibernate: MachineFlow;
  /** Unless somebody has used it meanwhile. */
  readonly hibernateIdle: MachineFlow;
  readonly stop: MachineFlow;
  readonly destroy: MachineFlow;
}

/** The input of a workflow that is started now. */
export const asking = (context: Context, { id, revision }: Pick<MachineRow, 'id' | 'revision'>): Asked => ({
  id,
  revision,
  controller: context.began.toISOString(),
});

/**
 * Whether this is left from a controller that is gone, and the machine was changed since: by the work itself, which was done and not noted
 * as done, or by somebody who asked for something else. DBOS takes such work up some time after the start of the next controller, and doing
 * it again would undo what was asked for since: it would put to sleep a machine that was woken. What stands in the middle of it goes on.
 */
async function isOutdated(context: Context, asked: Asked, midway: readonly MachineState[]): Promise<boolean> {
  if (asked.controller === context.began.toISOString()) return false;
  const row = await getMachine(context.db, asked.id);
  return row !== undefined && row.revision !== asked.revision && !midway.includes(row.state);
}

const STARTING: readonly MachineState[] = ['requested', 'creating', 'booting', 'resuming'];
const SLEEPING: readonly MachineState[] = ['hibernating'];

/** Registers the workflows; to be called once, before DBOS is launched. */
export function registerMachineFlows(context: Context): MachineFlows {
  const register = (
    name: string,
    work: (context: Context, id: MachineId, signal: AbortSignal) => Promise<void>,
    /** The states in which a machine is while this is done with it; null: it is never outdated. */
    midway: readonly MachineState[] | null,
  ): MachineFlow => {
    const flow: MachineFlow = (asked) =>
      DBOS.runStep(
        () =>
          attempt(context.closing, async () => {
            if (midway !== null && (await isOutdated(context, asked, midway))) {
              context.log.info(
                { machine: asked.id, flow: name },
                'left undone: the machine was changed since',
              );
              return null;
            }
            await work(context, asked.id, context.closing);
            return null;
          }),
        { name },
      );
    return DBOS.registerWorkflow(flow, { name: `${name}-machine` });
  };
  return {
    start: register('start', bootMachine, STARTING),
    hibernate: register('hibernate', hibernateMachine, SLEEPING),
    hibernateIdle: register('hibernate-idle', hibernateIdle, SLEEPING),
    stop: register('stop', stopMachine, []),
    destroy: register('destroy', destroyMachine, null),
  };
}
