/** What is done with the installation while it is killed: each track is one whole use, from nothing to nothing. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { Machine, Session } from '../../protocol/api.ts';
import { newSessionId, type SessionId } from '../../protocol/ids.ts';
import { isFinal, type MachineState } from '../../protocol/lifecycles.ts';
import type { Realm } from '../../protocol/machine.ts';
import { CALLBACK } from './guest.ts';
import type { Rig } from './rig.ts';

export type TrackName = 'login' | 'cancelled' | 'machine' | 'idle' | 'abandoned';

export interface Track {
  readonly name: TrackName;
  /** It changes the whole installation to get where it goes, and must be alone. */
  readonly alone?: true;
  /** @returns how it ended: `completed`, or the code of the named end */
  run(rig: Rig, user: string, signal: AbortSignal, realm?: Realm): Promise<string>;
}

const POLL_MS = 100;

/** Repeats what the API refuses or does not answer because something was killed. */
async function persist<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) throw error;
    }
    await sleep(POLL_MS);
  }
}

/** Starts a session; when the answer was lost, the one that the person has is found again. */
async function begin(
  rig: Rig,
  userId: string,
  signal: AbortSignal,
  realm: Realm = 'internet',
): Promise<SessionId> {
  return persist(signal, async () => {
    const { sessions } = await rig.api('GET', '/api/auth/sessions', z.object({ sessions: z.array(Session) }));
    const mine = sessions.find((session) => session.userId === userId);
    if (mine !== undefined) return mine.id;
    return (await rig.api('POST', '/api/auth/start', Session, { userId, provider: 'codex', realm })).id;
  });
}

/** Follows a session as a person does who signs in as soon as the page is there. */
async function follow(
  rig: Rig,
  id: SessionId,
  signal: AbortSignal,
  until: (session: Session) => boolean,
  options: { signIn: boolean },
): Promise<Session> {
  for (;;) {
    const session = await persist(signal, () => rig.api('GET', `/api/auth/session/${id}`, Session));
    if (until(session)) return session;
    if (signal.aborted) {
      throw new Error(`session ${id} is ${session.state} for ever: ${JSON.stringify(session.error)}`);
    }
    if (session.state === 'waiting_for_person' && options.signIn) {
      await rig
        .api('POST', `/api/auth/session/${id}/input`, z.unknown(), { text: CALLBACK })
        .catch(() => undefined);
    }
    await sleep(POLL_MS);
  }
}

const cleaned = (session: Session): boolean =>
  isFinal(session.state) && session.timeline.some((event) => event.name === 'clean_up');

const endOf = ({ state, error }: Session): string =>
  state === 'completed' ? state : (error?.code ?? `${state} without a name`);

/** The person's CLI machines go, and with them the last of what a track made. */
async function removeMachines(rig: Rig, userId: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { machines } = await persist(signal, () =>
      rig.api('GET', '/api/machines', z.object({ machines: z.array(Machine) })),
    );
    const mine = machines.filter((one) => one.userId === userId && one.state !== 'destroyed');
    if (mine.length === 0) return;
    if (signal.aborted) throw new Error(`stays: ${mine.map((one) => `${one.id} ${one.state}`).join(', ')}`);
    for (const { id, kind } of mine) {
      if (kind === 'cli') await rig.api('DELETE', `/api/machines/${id}`, Machine).catch(() => undefined);
    }
    await sleep(POLL_MS);
  }
}

const login: Track = {
  name: 'login',
  async run(rig, user, signal, realm) {
    const id = await begin(rig, user, signal, realm);
    const end = endOf(await follow(rig, id, signal, cleaned, { signIn: true }));
    await removeMachines(rig, user, signal);
    return end;
  },
};

const cancelled: Track = {
  name: 'cancelled',
  async run(rig, user, signal, realm) {
    const id = await begin(rig, user, signal, realm);
    const waits = (session: Session) => session.state === 'waiting_for_person' || isFinal(session.state);
    await follow(rig, id, signal, waits, { signIn: false });
    await persist(signal, async () => {
      const { state } = await rig.api('GET', `/api/auth/session/${id}`, Session);
      if (!isFinal(state)) await rig.api('DELETE', `/api/auth/session/${id}`, Session);
    });
    const end = endOf(await follow(rig, id, signal, cleaned, { signIn: false }));
    await removeMachines(rig, user, signal);
    return end === 'login_cancelled' ? 'completed' : end;
  },
};

/** What a person does with a CLI machine, and where that leads. */
const USES: readonly (readonly [string, MachineState])[] = [
  ['hibernate', 'hibernated'],
  ['resume', 'ready'],
  ['stop', 'stopped'],
  ['start', 'ready'],
];

const machine: Track = {
  name: 'machine',
  async run(rig, user, signal, realm) {
    const id = await begin(rig, user, signal, realm);
    const session = await follow(rig, id, signal, cleaned, { signIn: true });
    let end = endOf(session);
    const { cliMachineId } = session;
    if (cliMachineId !== null && end === 'completed') {
      for (const [action, to] of USES) {
        // Asked again until it is so: a start that a kill has ended leaves the machine stopped, with its name.
        const reached = async () => {
          const now = await rig.api('GET', `/api/machines/${cliMachineId}`, Machine);
          if (now.error !== null) end = now.error.code;
          return now.state === to;
        };
        while (!(await persist(signal, reached))) {
          if (signal.aborted) throw new Error(`machine ${cliMachineId} is never ${to}`);
          // What went on no further than its disk is woken by its next start.
          await rig.api('POST', `/api/machines/${cliMachineId}/${action}`, Machine).catch(async () => {
            if (to === 'stopped') return;
            await rig.api('POST', `/api/machines/${cliMachineId}/start`, Machine).catch(() => undefined);
          });
          await sleep(POLL_MS);
        }
      }
    }
    await removeMachines(rig, user, signal);
    return end;
  },
};

/** Nobody uses the CLI machine, and it falls asleep by itself. */
const idle: Track = {
  name: 'idle',
  alone: true,
  async run(rig, user, signal, realm) {
    const id = await begin(rig, user, signal, realm);
    const session = await follow(rig, id, signal, cleaned, { signIn: true });
    let end = endOf(session);
    const { cliMachineId } = session;
    const setIdle = (hibernateAfterSeconds: number) =>
      persist(signal, () => rig.api('PATCH', '/api/settings', z.unknown(), { hibernateAfterSeconds }));
    if (cliMachineId !== null && end === 'completed') {
      await setIdle(1);
      try {
        for (;;) {
          const now = await persist(signal, () => rig.api('GET', `/api/machines/${cliMachineId}`, Machine));
          if (now.error !== null) end = now.error.code;
          // One that ended on the way does not fall asleep, and says why it is stopped.
          if (now.state === 'hibernated' || now.state === 'stopped') break;
          if (signal.aborted) throw new Error(`machine ${cliMachineId} is ${now.state} and never asleep`);
          await sleep(POLL_MS);
        }
      } finally {
        await setIdle(0);
      }
    }
    await removeMachines(rig, user, signal);
    return end;
  },
};

/** The session's workflow belongs to another version of the code, so that the next controller must give it up by name. */
const abandoned: Track = {
  name: 'abandoned',
  alone: true,
  async run(rig, user, signal, realm) {
    const id = await begin(rig, user, signal, realm);
    const waits = (session: Session) => session.state === 'waiting_for_person' || isFinal(session.state);
    await follow(rig, id, signal, waits, { signIn: false });
    await rig.kill('controller');
    await rig.rows('UPDATE dbos.workflow_status SET application_version = $1 WHERE workflow_uuid = $2', [
      'older',
      `login-${id}`,
    ]);
    await rig.bringUp();
    const end = endOf(await follow(rig, id, signal, cleaned, { signIn: false }));
    await removeMachines(rig, user, signal);
    return end === 'controller_restarted' ? 'completed' : end;
  },
};

export const TRACKS: readonly Track[] = [login, cancelled, machine, idle, abandoned];

/** For a name of a person that no other run has. */
export const newPerson = (): string => `p${newSessionId().slice(2)}`;
