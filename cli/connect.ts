/** `./polydev connect`: one complete login session, watched from the terminal. */
import { z } from 'zod';
import { Session, type TimelineEvent } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import type { ProviderId, SessionId } from '../protocol/ids.ts';
import { isFinal } from '../protocol/lifecycles.ts';
import type { Api } from './api.ts';
import { formatDuration, type Output } from './output.ts';
import { signInOnDesktop, type TestPerson } from './test-person.ts';

export interface ConnectOptions {
  readonly provider: ProviderId;
  readonly testIdp: boolean;
  readonly json: boolean;
  readonly user: string | undefined;
  readonly account: string | undefined;
  readonly expires: number | undefined;
  /** Keep the machine of a login that fails. */
  readonly keepFailed: boolean | undefined;
  /** Who signs in at the test identity provider, and what that person does there. */
  readonly person: TestPerson;
}

/**
 * Starts a session, prints its timeline as it happens and returns the ended session. With the test identity provider
 * a person is played on the live desktop (pixels seen, keys and pointer sent over VNC); otherwise the live view's URL is
 * printed and a real person is awaited. Interrupting cancels the session. Throws the session's own error unless completed.
 */
export async function connect(
  api: Api,
  options: ConnectOptions,
  output: Output,
  signal: AbortSignal,
): Promise<Session> {
  const say = (value: Record<string, unknown>, text: string) =>
    options.json ? output.result(JSON.stringify(value)) : output.say(text);
  const began = Date.now();
  const clock = (at: string) => formatDuration(Math.max(0, Date.parse(at) - began)).padStart(8);

  const session = await api.request('POST', '/api/auth/start', Session, {
    provider: options.provider,
    ...(options.user === undefined ? {} : { userId: options.user }),
    ...(options.account === undefined ? {} : { account: options.account }),
    ...(options.expires === undefined ? {} : { expiresInSeconds: options.expires }),
    ...(options.testIdp ? { realm: 'test' } : {}),
    ...(options.keepFailed === undefined ? {} : { keepFailed: options.keepFailed }),
  });
  const live = new URL(session.liveViewPath, api.publicUrl).href;
  say({ type: 'session', id: session.id, liveView: live }, `session ${session.id}\n  live view  ${live}`);

  const finished = new AbortController();
  const onInterrupt = () => {
    void api.request('DELETE', `/api/auth/session/${session.id}`, Session).catch(() => {});
  };
  signal.addEventListener('abort', onInterrupt, { once: true });

  let person: Promise<void> | undefined;
  let personError: unknown;
  let waiting = false;
  try {
    for await (const event of api.timeline(session.id, finished.signal)) {
      say({ type: 'event', ...event }, describeEvent(event, clock(event.at)));
      if (event.subject !== 'session' || event.kind !== 'state') continue;
      waiting = event.name === 'waiting_for_person';
      if (waiting && !options.testIdp) {
        say({ type: 'waiting', liveView: live }, `\n  Open ${live} and sign in there.\n`);
      }
      if (waiting && options.testIdp && person === undefined) {
        person = signInOnDesktop(api, session.id, {
          provider: options.provider,
          person: options.person,
          signal: finished.signal,
          onStep: (step) =>
            say(
              { type: 'person', step, at: new Date().toISOString() },
              `${clock(new Date().toISOString())}    person   ${step}`,
            ),
        }).catch(async (error: unknown) => {
          // Once the CLI has what it needs, the desktop may go away while the person still looks at it; the event that says so
          // may come after that.
          if (!waiting || finished.signal.aborted || !(await isWaiting(api, session.id))) return;
          personError = error;
          const { message } = PolydevError.from(error);
          say({ type: 'person_failed', message }, `the played person gave up: ${message}`);
          onInterrupt();
        });
      }
    }
  } finally {
    finished.abort();
    signal.removeEventListener('abort', onInterrupt);
    await person;
  }

  const ended = await api.request('GET', `/api/auth/session/${session.id}`, Session);
  if (ended.state === 'completed') {
    const facts = await credentialFacts(api, ended);
    say(
      { type: 'completed', session: ended.id, credential: facts, verification: ended.verification },
      [
        '',
        `Connected as ${facts?.email ?? facts?.accountId ?? 'unknown'}${facts?.subscription ? ` (${facts.subscription})` : ''} after ${formatDuration(Date.now() - began)}`,
        `  credential   ${ended.credentialId} (encrypted in the vault; only its metadata is shown)`,
        `  CLI machine  ${ended.cliMachineId}, whose CLI says: ${ended.verification ?? '-'}`,
      ].join('\n'),
    );
    return ended;
  }
  if (personError !== undefined && ended.state === 'cancelled') throw personError;
  const error = ended.error;
  if (error !== null)
    throw new PolydevError(error.code, `session ${ended.state}: ${error.message}`, {
      lines: error.lines ?? [],
    });
  throw new PolydevError(
    'internal',
    `session ended as ${ended.state}${isFinal(ended.state) ? '' : ', which is not an end'}`,
  );
}

/** Whether the session waits for its person now; also when that cannot be learnt. */
async function isWaiting(api: Api, id: SessionId): Promise<boolean> {
  const now = await api.request('GET', `/api/auth/session/${id}`, Session).catch(() => undefined);
  return now === undefined || now.state === 'waiting_for_person';
}

async function credentialFacts(api: Api, session: Session) {
  const status = await api.request(
    'GET',
    `/api/auth/session/${session.id}/credentials/status`,
    z.object({
      facts: z
        .object({ accountId: z.string(), email: z.string().nullable(), subscription: z.string().nullable() })
        .nullable(),
    }),
  );
  return status.facts;
}

function describeEvent(event: TimelineEvent, clock: string): string {
  const duration = event.durationMs === null ? '' : `  ${formatDuration(event.durationMs)}`;
  const detail = event.detail === null ? '' : `  ${event.detail}`;
  const mark = {
    state: event.subject === 'session' ? '●' : '○',
    checkpoint: '·',
    step: '·',
    diagnosis: '!',
    health: '!',
  }[event.kind];
  return `${clock}  ${mark} ${event.subject.padEnd(8)} ${event.name}${duration}${detail}`;
}
