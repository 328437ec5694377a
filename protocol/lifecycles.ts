/**
 * The two lifecycles as data. The store refuses a transition that is not in these tables; the API's allowed
 * actions and the page's buttons are derived from them.
 */
import { z } from 'zod';

export const MachineState = z.enum([
  'requested',
  'creating',
  'booting',
  'ready',
  'hibernating',
  'hibernated',
  'resuming',
  'stopped',
  'destroying',
  'destroyed',
  'failed',
]);
export type MachineState = z.infer<typeof MachineState>;

/**
 * `stopped` keeps the private disk and may boot again: where a CLI machine goes when it does not start or ends by
 * itself. `failed` keeps the evidence and can only be destroyed: how a browser machine ends.
 * `hibernated`: the guest stands still with all that runs in it, and goes on when somebody needs it. One that fails to
 * hibernate is `ready` again; one that fails to go on is `stopped`.
 */
export const MACHINE_TRANSITIONS: Readonly<Record<MachineState, readonly MachineState[]>> = {
  requested: ['creating', 'stopped', 'destroying', 'failed'],
  creating: ['booting', 'stopped', 'destroying', 'failed'],
  booting: ['ready', 'stopped', 'destroying', 'failed'],
  ready: ['hibernating', 'stopped', 'destroying', 'failed'],
  hibernating: ['hibernated', 'ready', 'stopped', 'destroying', 'failed'],
  hibernated: ['resuming', 'stopped', 'destroying', 'failed'],
  resuming: ['ready', 'stopped', 'destroying', 'failed'],
  stopped: ['creating', 'destroying', 'failed'],
  destroying: ['destroyed', 'failed'],
  destroyed: [],
  failed: ['destroying'],
};

export const SessionState = z.enum([
  'queued',
  'preparing',
  'waiting_for_person',
  'capturing',
  'storing',
  'installing',
  'completed',
  'failed',
  'cancelled',
  'expired',
]);
export type SessionState = z.infer<typeof SessionState>;

export const SESSION_TRANSITIONS: Readonly<Record<SessionState, readonly SessionState[]>> = {
  queued: ['preparing', 'failed', 'cancelled', 'expired'],
  preparing: ['waiting_for_person', 'failed', 'cancelled', 'expired'],
  waiting_for_person: ['capturing', 'failed', 'cancelled', 'expired'],
  capturing: ['storing', 'failed', 'cancelled', 'expired'],
  storing: ['installing', 'failed', 'cancelled', 'expired'],
  installing: ['completed', 'failed', 'cancelled', 'expired'],
  completed: [],
  failed: [],
  cancelled: [],
  expired: [],
};

export const isFinal = (state: SessionState): boolean => SESSION_TRANSITIONS[state].length === 0;

export type SessionAction = 'cancel' | 'view' | 'input';

/** What a caller may do with a session in a state. */
export function sessionActions(state: SessionState): readonly SessionAction[] {
  if (isFinal(state)) return [];
  return state === 'waiting_for_person' ? ['cancel', 'view', 'input'] : ['cancel'];
}

export const MachineAction = z.enum(['open_terminal', 'start', 'resume', 'hibernate', 'stop', 'destroy']);
export type MachineAction = z.infer<typeof MachineAction>;

/** States from which a CLI machine gets to `ready` when it is needed. */
const AWAKENS: readonly MachineState[] = ['ready', 'hibernating', 'hibernated', 'resuming', 'stopped'];

/** What a caller may do with a machine in a state. */
export function machineActions(kind: 'browser' | 'cli', state: MachineState): readonly MachineAction[] {
  const actions: MachineAction[] = [];
  // A terminal wakes it, whatever its sleep.
  if (kind === 'cli' && AWAKENS.includes(state)) actions.push('open_terminal');
  if (kind === 'cli' && state === 'ready') actions.push('hibernate', 'stop');
  if (kind === 'cli' && state === 'hibernated') actions.push('resume', 'stop');
  if (kind === 'cli' && state === 'stopped') actions.push('start');
  if (MACHINE_TRANSITIONS[state].includes('destroying')) actions.push('destroy');
  return actions;
}
