/** LISTEN for timeline events, of this controller and of others, over one connection that is made anew when lost. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { z } from 'zod';
import { MachineId, SessionId } from '../../protocol/ids.ts';
import { TIMELINE_CHANNEL, type TimelineNotice } from './timeline.ts';

const Notice = z.object({
  seq: z.number(),
  sessionId: SessionId.nullable(),
  machineId: MachineId.nullable(),
});

/** Called for each event, and with undefined when some may have been missed: then read what you follow. */
export type NoticeHandler = (notice: TimelineNotice | undefined) => void;

export interface Notifications extends AsyncDisposable {
  /** @returns ends the subscription */
  subscribe(handler: NoticeHandler): () => void;
  /**
   * Resolves at the next event of a session, or when some may have been missed, or after `atMostMs`. Never rejects.
   * Call it before reading what is waited for, so that nothing falls between.
   */
  next(sessionId: SessionId, atMostMs: number, signal: AbortSignal): Promise<void>;
}

export interface ListenOptions {
  url: string;
  /** The connection was lost or refused; it is tried again. */
  onError?: (error: Error) => void;
}

/** Listens from when it resolves on. A lost connection is renewed after 0.1 s, then slower up to 5 s. */
export async function listen(options: ListenOptions): Promise<Notifications> {
  const handlers = new Set<NoticeHandler>();
  const closing = new AbortController();
  const tell: NoticeHandler = (notice) => {
    for (const handler of handlers) handler(notice);
  };

  const connect = async (): Promise<{ client: pg.Client; lost: Promise<Error> }> => {
    const client = new pg.Client({
      connectionString: options.url,
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
      application_name: 'polydev-listen',
    });
    const lost = new Promise<Error>((resolve) => {
      client.on('error', resolve);
      client.on('end', () => resolve(new Error('the connection ended')));
    });
    client.on('notification', ({ payload }) => {
      const notice = Notice.safeParse(parse(payload));
      tell(notice.success ? notice.data : undefined);
    });
    try {
      await client.connect();
      await client.query(`LISTEN ${TIMELINE_CHANNEL}`);
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    return { client, lost };
  };

  let current = await connect();
  const follow = async () => {
    let delayMs = 100;
    while (!closing.signal.aborted) {
      const error = await current.lost;
      if (closing.signal.aborted) return;
      options.onError?.(error);
      await current.client.end().catch(() => undefined);
      for (;;) {
        try {
          await sleep(delayMs, undefined, { signal: closing.signal, ref: false });
          current = await connect();
          delayMs = 100;
          tell(undefined);
          break;
        } catch (failure) {
          if (closing.signal.aborted) return;
          options.onError?.(failure instanceof Error ? failure : new Error(String(failure)));
          delayMs = Math.min(delayMs * 2, 5_000);
        }
      }
    }
  };
  const following = follow();

  const subscribe = (handler: NoticeHandler) => {
    handlers.add(handler);
    return () => void handlers.delete(handler);
  };
  return {
    subscribe,
    next: (sessionId, atMostMs, signal) =>
      new Promise((resolve) => {
        const done = () => {
          unsubscribe();
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          resolve();
        };
        const unsubscribe = subscribe((notice) => {
          if (notice === undefined || notice.sessionId === sessionId) done();
        });
        const timer = setTimeout(done, atMostMs);
        signal.addEventListener('abort', done, { once: true });
        if (signal.aborted) done();
      }),
    async [Symbol.asyncDispose]() {
      closing.abort();
      await current.client.end().catch(() => undefined);
      await following;
    },
  };
}

function parse(payload: string | undefined): unknown {
  try {
    return JSON.parse(payload ?? '');
  } catch {
    return undefined;
  }
}
