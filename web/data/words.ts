/** Names of the protocol in plain words. Complete by type: a new state does not compile without its words. */
import type { Machine } from '../../protocol/api.ts';
import type { CheckState } from '../../protocol/doctor.ts';
import type { MachineAction, MachineState, SessionState } from '../../protocol/lifecycles.ts';
import type { Checkpoint, MachineKind } from '../../protocol/machine.ts';

export type Tone = 'neutral' | 'busy' | 'attention' | 'good' | 'bad';

/** `doing` while the session is there, `done` once it has passed, `ahead` before (default: like `doing`). */
export const SESSION_WORDS: Readonly<
  Record<SessionState, { doing: string; done: string; ahead?: string; tone: Tone }>
> = {
  queued: { doing: 'Waiting for its turn', done: 'Accepted', tone: 'busy' },
  preparing: { doing: 'Preparing the machine', done: 'Browser machine ready', tone: 'busy' },
  waiting_for_person: {
    doing: 'Waiting for your sign-in',
    done: 'You signed in',
    ahead: 'Your sign-in',
    tone: 'attention',
  },
  capturing: { doing: 'Reading the credential', done: 'Credential checked', tone: 'busy' },
  storing: { doing: 'Encrypting and storing', done: 'Encrypted and stored', tone: 'busy' },
  installing: {
    doing: 'Installing it for the CLI',
    done: 'Installed for the CLI',
    tone: 'busy',
  },
  completed: { doing: 'Connected', done: 'Connected', tone: 'good' },
  failed: { doing: 'Failed', done: 'Failed', tone: 'bad' },
  cancelled: { doing: 'Cancelled', done: 'Cancelled', tone: 'neutral' },
  expired: { doing: 'Time ran out', done: 'Time ran out', tone: 'bad' },
};

/** The states of a login that works, in order: the steps that a timeline shows from the start. */
export const HAPPY_PATH: readonly SessionState[] = [
  'queued',
  'preparing',
  'waiting_for_person',
  'capturing',
  'storing',
  'installing',
  'completed',
];

export const MACHINE_WORDS: Readonly<Record<MachineState, { words: string; tone: Tone }>> = {
  requested: { words: 'Requested', tone: 'busy' },
  creating: { words: 'Being made', tone: 'busy' },
  booting: { words: 'Booting', tone: 'busy' },
  ready: { words: 'Ready', tone: 'good' },
  hibernating: { words: 'Falling asleep', tone: 'busy' },
  hibernated: { words: 'Hibernates', tone: 'neutral' },
  resuming: { words: 'Waking up', tone: 'busy' },
  stopped: { words: 'Stopped', tone: 'neutral' },
  destroying: { words: 'Being removed', tone: 'busy' },
  destroyed: { words: 'Removed', tone: 'neutral' },
  failed: { words: 'Failed', tone: 'bad' },
};

/** Of a machine as it is: one that is ready may still not work. */
export const machineWords = (machine: Pick<Machine, 'state' | 'health'>): { words: string; tone: Tone } =>
  machine.health?.state === 'degraded'
    ? { words: 'Ready, but not well', tone: 'attention' }
    : MACHINE_WORDS[machine.state];

/** What the doctor says of one thing. */
export const CHECK_WORDS: Readonly<Record<CheckState, { words: string; tone: Tone }>> = {
  fail: { words: 'Fails', tone: 'bad' },
  warn: { words: 'Warning', tone: 'attention' },
  unknown: { words: 'Not known', tone: 'neutral' },
  ok: { words: 'Works', tone: 'good' },
};

export const MACHINE_ACTION_WORDS: Readonly<Record<MachineAction, string>> = {
  open_terminal: 'Open terminal',
  start: 'Start',
  resume: 'Wake',
  hibernate: 'Hibernate',
  stop: 'Stop',
  destroy: 'Remove',
};

/** `missing` when the boot ended before this point. */
export const CHECKPOINT_WORDS: Readonly<Record<Checkpoint, { reached: string; missing: string }>> = {
  hypervisor: { reached: 'Sandbox started', missing: 'Sandbox did not start' },
  kernel: { reached: 'Kernel is up', missing: 'Kernel did not come up' },
  init: { reached: 'First process runs', missing: 'First process did not run' },
  agent: { reached: 'Agent answers', missing: 'Agent did not answer' },
  desktop: { reached: 'Desktop is up', missing: 'Desktop did not come up' },
  browser: { reached: 'Browser is up', missing: 'Browser did not come up' },
  provider: { reached: 'CLI is ready', missing: 'CLI did not get ready' },
};

/** The boot checklist of a kind of machine, in order. */
export function bootChecklist(kind: MachineKind): Checkpoint[] {
  const all = Object.keys(CHECKPOINT_WORDS) as Checkpoint[];
  return kind === 'browser' ? all : all.filter((name) => name !== 'desktop' && name !== 'browser');
}

export const KIND_WORDS: Readonly<Record<MachineKind, string>> = {
  browser: 'Browser machine',
  cli: 'CLI machine',
};

/** The named pieces of a login's work, as the controller's workflow names them; others are shown by their own name. */
export const STEP_WORDS: ReadonlyMap<string, string> = new Map([
  ['browser_machine', 'Machine started'],
  ['login_page', 'CLI opened the sign-in page'],
  ['person', "Sign-in on the provider's page"],
  ['capture', 'Credential read'],
  ['cli_machine', 'CLI machine ready'],
  ['install', 'Credential installed'],
  ['verify', 'CLI confirmed the login'],
  ['clean_up', 'Cleaned up'],
]);

/** `credential_check` → `Credential check`: for names that only the sender knows. */
export function humanise(name: string): string {
  const spaced = name.replaceAll(/[_-]+/g, ' ').trim();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
