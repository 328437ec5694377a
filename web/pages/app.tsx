/** pages/: one file per address. This one signs the person in, frames every page and chooses which is shown. */
import { lazy, Suspense, useEffect, useState } from 'react';
import type { Me } from '../../protocol/api.ts';
import { CallFailed, get, onSignedOut, type Problem, post, problemOf } from '../data/api.ts';
import { forgetResources } from '../data/resource.ts';
import { parseRoute, type Route, usePath } from '../data/routes.ts';
import { ActionButton, Link, Loading } from '../widgets/basics.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';
import { CredentialsPage } from './credentials.tsx';
import { DoctorPage } from './doctor.tsx';
import { HomePage } from './home.tsx';
import { HostsPage } from './hosts.tsx';
import { MachinePage } from './machine.tsx';
import { MachinesPage } from './machines.tsx';
import { NotFoundPage } from './not-found.tsx';
import { SessionPage } from './session.tsx';
import { SignedOutPage } from './signed-out.tsx';

// noVNC and xterm are most of the bundle: only the pages that need them load them.
const DesktopPage = lazy(() => import('./session-desktop.tsx'));
const TerminalPage = lazy(() => import('./terminal.tsx'));

const RETRY_MS = 3_000;

export function App() {
  const path = usePath();
  const route = parseRoute(path);
  const [me, setMe] = useState<Me>();
  const [signedOut, setSignedOut] = useState(false);
  const [problem, setProblem] = useState<Problem>();

  useEffect(
    () =>
      onSignedOut(() => {
        forgetResources();
        setMe(undefined);
        setSignedOut(true);
      }),
    [],
  );

  useEffect(() => {
    const stop = new AbortController();
    let retry: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      try {
        setMe(await get<Me>('/api/me', stop.signal));
        setProblem(undefined);
      } catch (thrown) {
        if (stop.signal.aborted || (thrown instanceof CallFailed && thrown.status === 401)) return;
        setProblem(problemOf(thrown));
        retry = setTimeout(() => void ask(), RETRY_MS);
      }
    };
    void ask();
    return () => {
      stop.abort();
      clearTimeout(retry);
    };
  }, []);

  if (signedOut) return <SignedOutPage />;
  if (me === undefined) {
    return (
      <main className="page page-narrow">
        {problem === undefined ? (
          <Loading what="Polydev" />
        ) : (
          <ProblemPanel title="Polydev cannot be reached" problem={problem} />
        )}
      </main>
    );
  }
  if (route.page === 'session-desktop') {
    return (
      <Suspense fallback={null}>
        <DesktopPage id={route.id} />
      </Suspense>
    );
  }
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <Header me={me} route={route} />
      <main id="main" tabIndex={-1} className={`page page-${route.page}`}>
        <Suspense fallback={<Loading what="the page" />}>
          <Page me={me} route={route} />
        </Suspense>
      </main>
    </>
  );
}

function Page({ me, route }: { readonly me: Me; readonly route: Route }) {
  switch (route.page) {
    case 'home':
      return <HomePage me={me} />;
    case 'session':
      return <SessionPage key={route.id} id={route.id} />;
    case 'machines':
      return <MachinesPage />;
    case 'machine':
      return <MachinePage key={route.id} id={route.id} />;
    case 'terminal':
      return <TerminalPage key={route.id} id={route.id} />;
    case 'credentials':
      return <CredentialsPage />;
    case 'hosts':
      return <HostsPage />;
    case 'doctor':
      return <DoctorPage />;
    default:
      return <NotFoundPage />;
  }
}

function Header({ me, route }: { readonly me: Me; readonly route: Route }) {
  const [problem, setProblem] = useState<Problem>();
  const inMachines = route.page === 'machines' || route.page === 'machine' || route.page === 'terminal';
  return (
    <header className="header">
      <div className="header-inner">
        <Link to={{ page: 'home' }} className="wordmark" label="Polydev, home">
          Polydev
        </Link>
        <nav aria-label="Main">
          <Link to={{ page: 'home' }} current={route.page === 'home' || route.page === 'session'}>
            Accounts
          </Link>
          <Link to={{ page: 'machines' }} current={inMachines}>
            Machines
          </Link>
          <Link to={{ page: 'credentials' }} current={route.page === 'credentials'}>
            Credentials
          </Link>
          <Link to={{ page: 'hosts' }} current={route.page === 'hosts' || route.page === 'doctor'}>
            Hosts
          </Link>
        </nav>
        <div className="who">
          <span className="who-name" title={me.role === 'operator' ? 'Operator of this host' : undefined}>
            {me.userId}
          </span>
          <ActionButton
            kind="quiet"
            onProblem={setProblem}
            action={async () => {
              await post('/api/sign-out');
              forgetResources();
              location.assign('/');
            }}
          >
            Sign out
          </ActionButton>
        </div>
      </div>
      {problem !== undefined && <ProblemPanel title="Signing out did not work" problem={problem} />}
    </header>
  );
}
