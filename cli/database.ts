/** The embedded Postgres of `up`: started, and started again when it dies. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type EmbeddedPostgresOptions, startEmbeddedPostgres } from '../controller/store/embedded.ts';

export interface SupervisedDatabase extends AsyncDisposable {
  readonly url: string;
}

/**
 * Starts it and keeps it running; the URL stays the same. `signal` ends a start that is under way.
 * @throws database_unreachable when the first start fails
 */
export async function superviseDatabase(
  options: EmbeddedPostgresOptions & { signal: AbortSignal },
  say: (text: string) => void,
): Promise<SupervisedDatabase> {
  const closing = new AbortController();
  const signal = AbortSignal.any([options.signal, closing.signal]);
  let current = await startEmbeddedPostgres(options);
  const { url } = current;

  const startAgain = async () => {
    for (let delayMs = 200; !signal.aborted; delayMs = Math.min(delayMs * 2, 5_000)) {
      try {
        await sleep(delayMs, undefined, { signal });
        current = await startEmbeddedPostgres({ ...options, signal });
        say('Postgres is running again');
        return;
      } catch (error) {
        if (!signal.aborted) say(error instanceof Error ? error.message : String(error));
      }
    }
  };
  const watching = (async () => {
    while (!signal.aborted) {
      await current.exited;
      if (signal.aborted) return;
      say('the embedded Postgres ended; starting it again');
      await startAgain();
    }
  })();

  return {
    url,
    async [Symbol.asyncDispose]() {
      closing.abort();
      await current.stop();
      await watching;
      // One that had just come up when it was to stop.
      await current.stop();
    },
  };
}
