import { useState } from 'react';
import type { Credential, Session } from '../../protocol/api.ts';
import { type Problem, startSession } from '../data/api.ts';
import { useJson } from '../data/resource.ts';
import { navigate } from '../data/routes.ts';
import { humanise } from '../data/words.ts';
import { ActionButton, Link } from './basics.tsx';
import { ProblemPanel } from './problem-panel.tsx';

export interface OutcomeProps {
  readonly session: Session;
  readonly title: string;
}

/** How a login ended: who is connected and where to go on, or why not, with the proof and the next step. */
export function Outcome({ session, title }: OutcomeProps) {
  if (session.state === 'completed') return <Connected session={session} title={title} />;
  // Cancelling is what somebody asked for: nothing is wrong.
  if (session.error !== null && session.state !== 'cancelled') {
    return (
      <ProblemPanel title={FAILED_WORDS[session.state] ?? 'The login failed'} problem={session.error} open>
        <NextSteps session={session} />
      </ProblemPanel>
    );
  }
  return (
    <section className="outcome">
      <h2>{FAILED_WORDS[session.state] ?? 'The login ended'}</h2>
      <p>Nothing was stored. The browser machine is removed; its evidence stays.</p>
      <div className="row">
        <NextSteps session={session} />
      </div>
    </section>
  );
}

const FAILED_WORDS: Readonly<Partial<Record<Session['state'], string>>> = {
  failed: 'The login failed',
  cancelled: 'The login was cancelled',
  expired: 'Nobody signed in in time',
};

function Connected({ session, title }: OutcomeProps) {
  const credentials = useJson<{ credentials: Credential[] }>('/api/credentials');
  const credential = credentials.value?.credentials.find(({ id }) => id === session.credentialId);
  const machine = session.cliMachineId;
  return (
    <section className="outcome outcome-good">
      <h2>
        Connected
        {credential !== undefined && <> as {credential.facts.email ?? credential.facts.accountId}</>}
      </h2>
      <p>
        {title} is logged in in your CLI machine
        {typeof credential?.facts.subscription === 'string' && (
          <>, with the {humanise(credential.facts.subscription)} subscription</>
        )}
        . The browser machine of this login is removed.
      </p>
      {session.verification !== null && (
        <figure className="said">
          <figcaption>What the CLI itself says there</figcaption>
          <pre className="lines">{session.verification}</pre>
        </figure>
      )}
      <div className="row">
        {machine !== null && (
          <Link to={{ page: 'terminal', id: machine }} className="button button-primary">
            Open terminal
          </Link>
        )}
        <Link to={{ page: 'home' }} className="button button-plain">
          Your accounts
        </Link>
      </div>
    </section>
  );
}

function NextSteps({ session }: { readonly session: Session }) {
  const [problem, setProblem] = useState<Problem>();
  return (
    <>
      <ActionButton
        kind="primary"
        onProblem={setProblem}
        action={async () => {
          const { provider, account, realm } = session;
          const next = await startSession<Session>({ provider, account, realm });
          navigate({ page: 'session', id: next.id });
        }}
      >
        Start again
      </ActionButton>
      {session.browserMachineId !== null && (
        <Link to={{ page: 'machine', id: session.browserMachineId }} className="button button-plain">
          Evidence of the machine
        </Link>
      )}
      {problem !== undefined && <ProblemPanel title="It could not be started" problem={problem} />}
    </>
  );
}
