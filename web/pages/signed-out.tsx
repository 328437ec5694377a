import { linkWasRefused } from '../data/routes.ts';
import { useTitle } from '../widgets/basics.tsx';

/** What somebody without a browser session sees. A sign-in link is made on the host, so that is what it says. */
export function SignedOutPage() {
  useTitle('Sign in');
  return (
    <main className="page page-narrow signed-out">
      <p className="wordmark">Polydev</p>
      <h1>You are not signed in</h1>
      {linkWasRefused() && (
        <p role="alert" className="signed-out-reason">
          The sign-in link that you opened was used before or is too old. You need a new one.
        </p>
      )}
      <p>
        A sign-in link opens this dashboard. It works once. There are two ways to get one, on the host that
        runs Polydev:
      </p>
      <dl className="ways">
        <dt>Polydev is not running yet</dt>
        <dd>
          <code>./polydev up</code> starts it and prints a link.
        </dd>
        <dt>It is running</dt>
        <dd>
          <code>./polydev sign-in</code> makes a new link.
        </dd>
      </dl>
      <p className="hint">On a service that somebody else runs, ask its operator for a link.</p>
      <p>
        <a className="button button-plain" href={location.pathname}>
          I have opened the link: try again
        </a>
      </p>
    </main>
  );
}
