/** Start, stop, hibernate and destroy of a machine, as durable workflows of one step. */
import { DBOS } from '@dbos-inc/dbos-sdk';
import type { MachineId } from '../../protocol/ids.ts';
import type { Context } from './context.ts';
import { bootMachine, destroyMachine, stopMachine } from './machine-steps.ts';
import { attempt, type StepResult } from './result.ts';
import { hibernateIdle, hibernateMachine } from './sleep-steps.ts';

export type MachineFlow = (id: MachineId) => Promise<StepResult>;

export interface MachineFlows {
  /** From any state: one that hibernates goes on where it was. */
  readonly start: MachineFlow;
  readonly hibernate: MachineFlow;
  /** Unless somebody has used it meanwhile. */
  readonly hibernateIdle: MachineFlow;
  readonly stop: MachineFlow;
  readonly destroy: MachineFlow;
}

/** Registers the workflows; to be called once, before DBOS is launched. */
export function registerMachineFlows(context: Context): MachineFlows {
  const register = (
    name: string,
    work: (context: Context, id: MachineId, signal: AbortSignal) => Promise<void>,
  ): MachineFlow => {
    const flow: MachineFlow = (id) =>
      DBOS.runStep(
        () =>
          attempt(context.closing, async () => {
            await work(context, id, context.closing);
            return null;
          }),
        { name },
      );
    return DBOS.registerWorkflow(flow, { name: `${name}-machine` });
  };
  return {
    start: register('start', bootMachine),
    hibernate: register('hibernate', hibernateMachine),
    hibernateIdle: register('hibernate-idle', hibernateIdle),
    stop: register('stop', stopMachine),
    destroy: register('destroy', destroyMachine),
  };
}
