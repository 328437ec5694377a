import { type FormEvent, useId, useState } from 'react';
import type { AuthStart, Credential, Me, Provider, Session } from '../../protocol/api.ts';
import { type Problem, problemOf, remove, startSession } from '../data/api.ts';
import { dateTime } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { navigate } from '../data/routes.ts';
import { humanise, SESSION_WORDS } from '../data/words.ts';
import { ActionButton, Badge, ConfirmButton, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

const REFRESH_MS = 4_000;
const RECENT = 5;

export function HomePage({ me }: { readonly me: Me }) {
  useTitle('Accounts');
  const providers = useJson<{ providers: Provider[] }>('/api/providers', REFRESH_MS);
  // An operator would get everybody's: this page is about one's own.
  const ofMine = `?userId=${encodeURIComponent(me.userId)}`;
  const sessions = useJson<{ sessions: Session[] }>(`/api/auth/sessions${ofMine}`, REFRESH_MS);
  const problem = providers.problem ?? sessions.problem;
  const all = sessions.value?.sessions ?? [];
  const titles = new Map(providers.value?.providers.map(({ id, title }) => [id, title]));
  const running = all.filter((session) => session.endedAt === null);
  const recent = all.filter((session) => session.endedAt !== null).slice(0, RECENT);

  return (
    <>
      <PageHead title="Accounts" />
      {problem !== undefined && <ProblemPanel title="This page is not up to date" problem={problem} />}
      {running.length > 0 && (
        <section aria-labelledby="running" className="block">
          <h2 id="running">Logins under way</h2>
          <SessionList sessions={running} titles={titles} verb="Return to it" />
        </section>
      )}
      {providers.value === undefined
        ? providers.problem === undefined && <Loading what="the providers" lines={4} />
        : providers.value.providers.map((provider) => (
            <ProviderBlock
              key={provider.id}
              provider={provider}
              testRealm={me.realms.includes('test')}
              running={running.find((session) => session.provider === provider.id)}
              onChange={providers.reload}
            />
          ))}
      {recent.length > 0 && (
        <section aria-labelledby="recent" className="block">
          <h2 id="recent">Earlier logins</h2>
          <SessionList sessions={recent} titles={titles} verb="What happened" />
        </section>
      )}
    </>
  );
}

interface SessionListProps {
  readonly sessions: readonly Session[];
  readonly titles: ReadonlyMap<string, string>;
  readonly verb: string;
}

function SessionList({ sessions, titles, verb }: SessionListProps) {
  return (
    <ul className="list">
      {sessions.map((session) => {
        const { doing, tone } = SESSION_WORDS[session.state];
        const title = titles.get(session.provider) ?? humanise(session.provider);
        return (
          <li key={session.id} className="list-item">
            <div className="list-main">
              <span className="list-title">
                {title}
                {session.account !== 'default' && ` (${session.account})`}
                {session.realm === 'test' && <TestMark />}
              </span>
              <span className="hint">
                started <time dateTime={session.createdAt}>{dateTime(session.createdAt)}</time>
              </span>
            </div>
            <Badge tone={tone}>{doing}</Badge>
            <Link
              to={{ page: 'session', id: session.id }}
              className="button button-plain"
              label={`${verb}: ${title}, started ${dateTime(session.createdAt)}`}
            >
              {verb}
            </Link>
          </li>
        );
      })}
    </ul>
  );
}

const TestMark = () => <span className="mark">test</span>;

interface ProviderBlockProps {
  readonly provider: Provider;
  readonly testRealm: boolean;
  readonly running: Session | undefined;
  readonly onChange: () => void;
}

function ProviderBlock({ provider, testRealm, running, onChange }: ProviderBlockProps) {
  const [problem, setProblem] = useState<Problem>();
  const connected = provider.connected;
  const start = async (choice: Pick<AuthStart, 'account' | 'realm'>) => {
    const session = await startSession<Session>({ provider: provider.id, ...choice });
    navigate({ page: 'session', id: session.id });
  };
  return (
    <section className="provider block" aria-labelledby={`provider-${provider.id}`}>
      <div className="provider-head">
        <div>
          <h2 id={`provider-${provider.id}`}>{provider.title}</h2>
          {connected.length === 0 && (
            <p className="hint">
              Not connected. You sign in on the provider's own site, in a browser that exists only for this
              login.
            </p>
          )}
        </div>
        <div className="provider-actions">
          <ActionButton
            kind={connected.length === 0 ? 'primary' : 'plain'}
            onProblem={setProblem}
            label={`${connected.length === 0 ? 'Connect' : 'Connect again:'} ${provider.title}`}
            action={() => start({})}
          >
            {connected.length === 0 ? 'Connect' : 'Connect again'}
          </ActionButton>
          {testRealm && (
            <ActionButton kind="quiet" onProblem={setProblem} action={() => start({ realm: 'test' })}>
              Connect with the test identity provider
            </ActionButton>
          )}
        </div>
      </div>
      {problem !== undefined && (
        <ProblemPanel title={`${provider.title} could not be connected`} problem={problem}>
          {problem.code === 'login_in_progress' && running !== undefined && (
            <Link to={{ page: 'session', id: running.id }} className="button button-plain">
              Return to the login under way
            </Link>
          )}
        </ProblemPanel>
      )}
      {connected.length > 0 && (
        <ul className="list">
          {connected.map((credential) => (
            <Account key={credential.id} credential={credential} title={provider.title} onChange={onChange} />
          ))}
        </ul>
      )}
      <AnotherAccount connected={connected.length > 0} start={start} />
    </section>
  );
}

interface AccountProps {
  readonly credential: Credential;
  readonly title: string;
  readonly onChange: () => void;
}

function Account({ credential, title, onChange }: AccountProps) {
  const { facts, holderMachineId } = credential;
  const name = facts.email ?? facts.accountId;
  return (
    <li className="list-item">
      <div className="list-main">
        <span className="list-title">
          Connected as {name}
          {credential.account !== 'default' && ` (${credential.account})`}
          {credential.realm === 'test' && <TestMark />}
        </span>
        <span className="hint">
          {facts.subscription !== null && <>{humanise(facts.subscription)} subscription, </>}
          since <time dateTime={credential.createdAt}>{dateTime(credential.createdAt)}</time>
          {holderMachineId !== null ? (
            <>
              , in <Link to={{ page: 'machine', id: holderMachineId }}>its CLI machine</Link>
            </>
          ) : (
            ', in no machine now'
          )}
        </span>
      </div>
      <div className="row">
        {holderMachineId !== null && (
          <Link
            to={{ page: 'terminal', id: holderMachineId }}
            className="button button-primary"
            label={`Open terminal for ${name}`}
          >
            Open terminal
          </Link>
        )}
        <ConfirmButton
          title={`Disconnect ${name}?`}
          explanation={
            <p>
              Polydev deletes the stored credential and the file in the CLI machine. Your files there stay. At{' '}
              {title} itself nothing is revoked; to use it here again you sign in again.
            </p>
          }
          confirm="Disconnect"
          label={`Disconnect ${name}`}
          action={async () => {
            await remove(`/api/credentials/${credential.id}`);
            onChange();
          }}
        >
          Disconnect
        </ConfirmButton>
      </div>
    </li>
  );
}

interface AnotherAccountProps {
  readonly connected: boolean;
  readonly start: (choice: Pick<AuthStart, 'account'>) => Promise<void>;
}

/** Several accounts of one provider are told apart by a label of the person's choice. */
function AnotherAccount({ connected, start }: AnotherAccountProps) {
  const id = useId();
  const [account, setAccount] = useState('');
  const [problem, setProblem] = useState<Problem>();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setProblem(undefined);
    try {
      await start({ account });
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
  };
  return (
    <details className="more">
      <summary>{connected ? 'Connect another account' : 'Connect under a label'}</summary>
      <form className="row more-body" onSubmit={(event) => void submit(event)}>
        <label htmlFor={id}>Label for the account</label>
        <input
          id={id}
          className="field"
          value={account}
          onChange={(event) => setAccount(event.target.value)}
          required
          maxLength={64}
          pattern="[A-Za-z0-9._@\-]+"
          title="Letters, digits and . _ @ -"
          placeholder="work"
          autoComplete="off"
        />
        <button type="submit" className="button button-plain">
          Connect it
        </button>
      </form>
      {problem !== undefined && <ProblemPanel title="It could not be connected" problem={problem} />}
    </details>
  );
}
