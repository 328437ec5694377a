import { useCallback, useEffect, useRef, useState } from 'react';
import { get, getText, type Problem, problemOf } from './api.ts';

export interface Resource<T> {
  /** The last good answer; kept while a later one fails, so that the page does not jump. */
  readonly value: T | undefined;
  /** Why the last attempt failed, if it did. */
  readonly problem: Problem | undefined;
  /** Asks again now. */
  readonly reload: () => void;
}

/** What pages saw last, by path: going back shows it at once, then refreshes. */
const seen = new Map<string, unknown>();

/** Forgets everything seen; at sign-out, so that the next person sees nothing of this one. */
export const forgetResources = (): void => seen.clear();

function usePolled<T>(
  path: string,
  everyMs: number,
  read: (path: string, signal: AbortSignal) => Promise<T>,
) {
  const [state, setState] = useState<{ path: string; value: T | undefined; problem: Problem | undefined }>(
    () => ({
      path,
      value: seen.get(path) as T | undefined,
      problem: undefined,
    }),
  );
  const [attempt, setAttempt] = useState(0);
  const reader = useRef(read);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `attempt` changes to ask again.
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      try {
        const value = await reader.current(path, stop.signal);
        seen.set(path, value);
        if (!stop.signal.aborted) setState({ path, value, problem: undefined });
      } catch (thrown) {
        if (stop.signal.aborted) return;
        setState((old) => ({
          path,
          value: old.path === path ? old.value : undefined,
          problem: problemOf(thrown),
        }));
      }
      if (!stop.signal.aborted && everyMs > 0) timer = setTimeout(tick, everyMs);
    };
    // A hidden page asks nothing; it asks at once when it is looked at again.
    const tick = () => {
      if (document.hidden) document.addEventListener('visibilitychange', tick, { once: true });
      else void ask();
    };
    void ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', tick);
    };
  }, [path, everyMs, attempt]);

  const reload = useCallback(() => setAttempt((n) => n + 1), []);
  const current =
    state.path === path ? state : { value: seen.get(path) as T | undefined, problem: undefined };
  return { value: current.value, problem: current.problem, reload };
}

/** The JSON at `path`, asked again every `everyMs` (0: once) while the page is visible. */
export const useJson = <T>(path: string, everyMs = 0): Resource<T> => usePolled<T>(path, everyMs, get);

/** The text at `path`, the same way. */
export const useText = (path: string, everyMs = 0): Resource<string> =>
  usePolled<string>(path, everyMs, getText);
