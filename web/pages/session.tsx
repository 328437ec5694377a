import { lazy, Suspense, useState } from 'react';
import type { Provider, Session } from '../../protocol/api.ts';
import { type Problem, remove } from '../data/api.ts';
import { countdown, dateTime, duration, useNow } from '../data/clock.ts';
import { useLiveSession } from '../data/live-session.ts';
import { useJson } from '../data/resource.ts';
import { humanise, SESSION_WORDS } from '../data/words.ts';
import { Badge, ConfirmButton, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { LoginInput } from '../widgets/login-input.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';
import { Outcome } from '../widgets/session-outcome.tsx';
import { Timeline } from '../widgets/timeline.tsx';

const Desktop = lazy(() => import('../widgets/desktop.tsx'));

const HURRY_MS = 60_000;

/** One login, live: its steps on one side, on the other the desktop, and in the end how it ended. */
export function SessionPage({ id }: { readonly id: string }) {
  const { session, timeline, problem, missing, refresh } = useLiveSession(id);
  const providers = useJson<{ providers: Provider[] }>('/api/providers');
  const [actionProblem, setActionProblem] = useState<Problem>();
  const title =
    providers.value?.providers.find((provider) => provider.id === session?.provider)?.title ??
    humanise(session?.provider ?? 'a provider');
  const words = session === undefined ? undefined : SESSION_WORDS[session.state];
  useTitle(words === undefined ? 'Login' : `${words.doing}: ${title}`);

  if (session === undefined) {
    if (problem === undefined) return <Loading what="the login" lines={6} />;
    return (
      <ProblemPanel
        title={missing ? 'There is no such login' : 'The login cannot be shown'}
        problem={problem}
      >
        <Link to={{ page: 'home' }} className="button button-plain">
          Your accounts
        </Link>
      </ProblemPanel>
    );
  }
  const { doing, tone } = SESSION_WORDS[session.state];
  return (
    <>
      <PageHead title={`Connect ${title}`}>
        <span role="status">
          <Badge tone={tone}>{doing}</Badge>
        </span>
        {session.realm === 'test' && <span className="mark">test identity provider</span>}
        <span className="page-head-end">
          {session.endedAt === null && <TimeLeft session={session} />}
          {session.actions.includes('cancel') && (
            <ConfirmButton
              kind="plain"
              title="Cancel this login?"
              explanation={<p>The browser machine is removed. Its evidence stays. Nothing is stored.</p>}
              confirm="Cancel the login"
              action={async () => {
                await remove(`/api/auth/session/${session.id}`);
                refresh();
              }}
            >
              Cancel
            </ConfirmButton>
          )}
        </span>
      </PageHead>
      {problem !== undefined && <ProblemPanel title="This page is not up to date" problem={problem} />}
      {actionProblem !== undefined && <ProblemPanel title="That did not work" problem={actionProblem} />}
      <div className="session">
        <aside className="session-steps">
          <Timeline events={timeline} />
          <Facts session={session} />
        </aside>
        <div className="session-stage">
          <Stage session={session} title={title} onProblem={setActionProblem} />
        </div>
      </div>
    </>
  );
}

function TimeLeft({ session }: { readonly session: Session }) {
  const now = useNow(1000, true);
  const left = Date.parse(session.expiresAt) - now;
  return (
    <span className={left < HURRY_MS ? 'time-left time-left-short' : 'time-left'}>
      <span className="hint">Time left</span> <span role="timer">{countdown(left)}</span>
    </span>
  );
}

interface StageProps {
  readonly session: Session;
  readonly title: string;
  readonly onProblem: (problem: Problem | undefined) => void;
}

function Stage({ session, title, onProblem }: StageProps) {
  if (session.endedAt !== null) return <Outcome session={session} title={title} />;
  const live = session.actions.includes('view');
  return (
    <>
      <Guide session={session} />
      {live ? (
        <Suspense fallback={<Placeholder words="Connecting to the desktop" />}>
          <Desktop sessionId={session.id} />
        </Suspense>
      ) : (
        <Placeholder
          words={
            session.state === 'queued' || session.state === 'preparing'
              ? 'The desktop appears here as soon as the machine is ready'
              : 'Sign-in done. Nothing more to do here'
          }
        />
      )}
      {session.actions.includes('input') && <LoginInput session={session} onProblem={onProblem} />}
    </>
  );
}

/** Keeps the place of the desktop, so that nothing jumps when it comes. */
function Placeholder({ words }: { readonly words: string }) {
  return (
    <div className="desktop">
      <div className="screen">
        <div className="screen-cover" role="status">
          {words}
        </div>
      </div>
    </div>
  );
}

/** Which host the person must see before typing a password; one line, also while there is no address yet. */
function Guide({ session }: { readonly session: Session }) {
  const host = hostOf(session.loginUrl);
  if (session.state !== 'waiting_for_person' || host === undefined) {
    return (
      <p className="guide">You sign in on the provider's own page. Polydev does not see your password.</p>
    );
  }
  return (
    <p className="guide">
      Sign in below. The address bar must say <strong className="host">{host}</strong> before you type a
      password.
    </p>
  );
}

function hostOf(url: string | null): string | undefined {
  return url !== null && URL.canParse(url) ? new URL(url).host : undefined;
}

function Facts({ session }: { readonly session: Session }) {
  return (
    <dl className="facts">
      <dt>Started</dt>
      <dd>
        <time dateTime={session.createdAt}>{dateTime(session.createdAt)}</time>
      </dd>
      {session.endedAt !== null && (
        <>
          <dt>Took</dt>
          <dd>{duration(Date.parse(session.endedAt) - Date.parse(session.createdAt))}</dd>
        </>
      )}
      {session.browserMachineId !== null && (
        <>
          <dt>Browser machine</dt>
          <dd>
            <Link to={{ page: 'machine', id: session.browserMachineId }}>
              <code>{session.browserMachineId}</code>
            </Link>
          </dd>
        </>
      )}
      {session.cliMachineId !== null && (
        <>
          <dt>CLI machine</dt>
          <dd>
            <Link to={{ page: 'machine', id: session.cliMachineId }}>
              <code>{session.cliMachineId}</code>
            </Link>
          </dd>
        </>
      )}
    </dl>
  );
}
