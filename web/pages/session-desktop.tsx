import type { SessionId } from '../../protocol/ids.ts';
import { useLiveSession } from '../data/live-session.ts';
import { SESSION_WORDS } from '../data/words.ts';
import { useTitle } from '../widgets/basics.tsx';
import Desktop from '../widgets/desktop.tsx';

/** Only the live desktop, filling the window: for embedding in another page's frame. */
export default function SessionDesktopPage({ id }: { readonly id: string }) {
  const { session, problem } = useLiveSession(id);
  useTitle('Live desktop');
  if (session?.actions.includes('view')) return <Desktop sessionId={id as SessionId} bare />;
  let words = 'Loading';
  if (session !== undefined) words = SESSION_WORDS[session.state].doing;
  else if (problem !== undefined) words = `${problem.message} ${problem.remedy}`;
  return (
    <main className="desktop desktop-bare">
      <div className="screen">
        <div className="screen-cover" role="status">
          {words}
        </div>
      </div>
    </main>
  );
}
