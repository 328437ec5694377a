/** Turns a session's flat list of events into the steps a person reads. No React here: it is tested by itself. */
import type { TimelineEvent } from '../../protocol/api.ts';
import type { SessionState } from '../../protocol/lifecycles.ts';
import type { Checkpoint } from '../../protocol/machine.ts';
import { CHECKPOINT_WORDS, HAPPY_PATH, humanise, MACHINE_WORDS, SESSION_WORDS, STEP_WORDS } from './words.ts';

export interface SubStep {
  readonly key: string;
  readonly title: string;
  readonly at: string;
  /** Milliseconds it took (a named piece of work), or null. */
  readonly tookMs: number | null;
  /** Milliseconds from the session's start. */
  readonly offsetMs: number;
  readonly detail: string | null;
}

export interface Step {
  readonly state: SessionState;
  readonly status: 'done' | 'current' | 'stopped' | 'ahead' | 'ended';
  readonly title: string;
  /** When it was entered, ISO; null while it is ahead. */
  readonly at: string | null;
  /** When it was left, ISO; null while it lasts. */
  readonly leftAt: string | null;
  readonly detail: string | null;
  readonly children: readonly SubStep[];
}

const isSessionState = (name: string): name is SessionState => Object.hasOwn(SESSION_WORDS, name);
const isCheckpoint = (name: string): name is Checkpoint => Object.hasOwn(CHECKPOINT_WORDS, name);

function subStep(event: TimelineEvent, startMs: number): SubStep | undefined {
  let title: string;
  if (event.kind === 'checkpoint')
    title = isCheckpoint(event.name) ? CHECKPOINT_WORDS[event.name].reached : humanise(event.name);
  else if (event.kind === 'step') title = STEP_WORDS.get(event.name) ?? humanise(event.name);
  else if (event.kind === 'diagnosis') title = `Diagnosis: ${humanise(event.name).toLowerCase()}`;
  else if (event.kind === 'health')
    title = event.name === 'healthy' ? 'Machine works again' : 'Machine does not work as it should';
  else {
    // Of the machine's own states only those that no checkpoint tells are worth a line.
    if (event.name === 'destroyed') title = 'Browser machine removed';
    else if (event.name === 'failed') title = `Machine: ${MACHINE_WORDS.failed.words.toLowerCase()}`;
    else return undefined;
  }
  return {
    key: String(event.seq),
    title,
    at: event.at,
    tookMs: event.kind === 'step' ? event.durationMs : null,
    offsetMs: Date.parse(event.at) - startMs,
    detail: event.detail,
  };
}

/**
 * The steps of a session: those entered, with what was done in each below it, then those of the usual path still
 * ahead. After a failure, the step where it stopped is marked and nothing is ahead.
 */
export function stepsOf(events: readonly TimelineEvent[]): Step[] {
  const startMs = events[0] === undefined ? 0 : Date.parse(events[0].at);
  const entered: { state: SessionState; event: TimelineEvent; children: SubStep[] }[] = [];
  for (const event of events) {
    if (event.subject === 'session' && event.kind === 'state' && isSessionState(event.name)) {
      entered.push({ state: event.name, event, children: [] });
      continue;
    }
    const child = subStep(event, startMs);
    // A piece of work is written down when it has ended; the next step may have been entered by then. Its middle
    // tells where most of it was done.
    const middle = Date.parse(event.at) - (event.durationMs ?? 0) / 2;
    const during = entered.findLast((step) => Date.parse(step.event.at) <= middle) ?? entered[0];
    if (child !== undefined) during?.children.push(child);
  }

  const steps: Step[] = entered.map(({ state, event, children }, index) => {
    const next = entered[index + 1];
    const final = !HAPPY_PATH.includes(state) || state === 'completed';
    let status: Step['status'] = 'current';
    if (final) status = 'ended';
    else if (next !== undefined) status = HAPPY_PATH.includes(next.state) ? 'done' : 'stopped';
    const words = SESSION_WORDS[state];
    return {
      state,
      status,
      title: status === 'done' ? words.done : words.doing,
      at: event.at,
      leftAt: next?.event.at ?? null,
      detail: event.detail,
      children,
    };
  });

  const last = steps.at(-1);
  if (last === undefined || last.status === 'current') {
    const reached = last === undefined ? -1 : HAPPY_PATH.indexOf(last.state);
    for (const state of HAPPY_PATH.slice(reached + 1)) {
      const words = SESSION_WORDS[state];
      steps.push({
        state,
        status: 'ahead',
        title: words.ahead ?? words.doing,
        at: null,
        leftAt: null,
        detail: null,
        children: [],
      });
    }
  }
  return steps;
}
