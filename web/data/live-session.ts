import { useEffect, useState } from 'react';
import type { Session, TimelineEvent } from '../../protocol/api.ts';
import { CallFailed, get, type Problem, problemOf } from './api.ts';

export interface LiveSession {
  readonly session: Session | undefined;
  readonly timeline: readonly TimelineEvent[];
  readonly problem: Problem | undefined;
  /** True when this session is known not to exist for this person. */
  readonly missing: boolean;
  /** Asks for the session again, for example after an action. */
  readonly refresh: () => void;
}

interface State {
  session: Session | undefined;
  timeline: readonly TimelineEvent[];
  problem: Problem | undefined;
  missing: boolean;
}

const EMPTY: State = { session: undefined, timeline: [], problem: undefined, missing: false };

/** Events by `seq`, each once, in order. */
export function mergeTimeline(
  known: readonly TimelineEvent[],
  more: readonly TimelineEvent[],
): readonly TimelineEvent[] {
  const bySeq = new Map(known.map((event) => [event.seq, event]));
  for (const event of more) bySeq.set(event.seq, event);
  return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
}

const RETRY_MS = 2_000;

/**
 * A session and its timeline, live: events come by server-sent events, and each transition fetches the session
 * again, because what else it changes (login URL, actions, error) is the server's to say.
 */
export function useLiveSession(id: string): LiveSession {
  const [state, setState] = useState<State>(EMPTY);
  const [refresh, setRefresh] = useState<() => void>(() => () => {});

  useEffect(() => {
    const stop = new AbortController();
    let source: EventSource | undefined;
    let retry: ReturnType<typeof setTimeout> | undefined;
    let asked = 0;
    let ended = false;
    let gone = false;
    setState(EMPTY);

    const fetchSession = async () => {
      asked += 1;
      const mine = asked;
      try {
        const session = await get<Session>(`/api/auth/session/${id}`, stop.signal);
        // Only the newest question's answer counts: an older one may arrive later.
        if (stop.signal.aborted || mine !== asked) return;
        ended = session.endedAt !== null;
        setState((old) => ({
          session,
          timeline: mergeTimeline(old.timeline, session.timeline),
          problem: undefined,
          missing: false,
        }));
      } catch (thrown) {
        if (stop.signal.aborted) return;
        const missing = thrown instanceof CallFailed && [400, 403, 404].includes(thrown.status);
        setState((old) => ({ ...old, problem: problemOf(thrown), missing }));
        if (missing) {
          gone = true;
          source?.close();
        } else later();
      }
    };

    const listen = () => {
      source?.close();
      source = new EventSource(`/api/auth/session/${id}/events`);
      source.onmessage = (message: MessageEvent<string>) => {
        const event: TimelineEvent = JSON.parse(message.data);
        setState((old) => ({ ...old, timeline: mergeTimeline(old.timeline, [event]) }));
        if (event.kind === 'state') void fetchSession();
      };
      // The server's last word: the session as it ended, its machine gone.
      source.addEventListener('end', (message: MessageEvent<string>) => {
        source?.close();
        ended = true;
        const session: Session = JSON.parse(message.data);
        setState((old) => ({ ...old, session, timeline: mergeTimeline(old.timeline, session.timeline) }));
      });
      source.onerror = () => {
        if (gone || ended) source?.close();
        else if (source?.readyState === EventSource.CLOSED) later();
        else void fetchSession();
      };
    };

    const later = () => {
      clearTimeout(retry);
      if (gone) return;
      retry = setTimeout(() => {
        void fetchSession();
        if (!ended && source?.readyState !== EventSource.OPEN) listen();
      }, RETRY_MS);
    };

    setRefresh(() => () => void fetchSession());
    void fetchSession();
    listen();
    return () => {
      stop.abort();
      clearTimeout(retry);
      source?.close();
    };
  }, [id]);

  return { ...state, refresh };
}
