/** The commands' client of the controller's public API; the key is read from the data directory of this host. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { TimelineEvent } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import { readLock } from './lock.ts';
import { type Settings, settingsPaths } from './settings.ts';

export interface Api {
  readonly url: string;
  /** The address that people open. */
  readonly publicUrl: string;
  request<T>(method: string, route: string, schema: z.ZodType<T>, body?: unknown): Promise<T>;
  text(route: string): Promise<string>;
  bytes(route: string): Promise<Buffer>;
  /** The timeline of a session, live; reconnects until the server ends it. */
  timeline(sessionId: string, signal: AbortSignal): AsyncIterable<TimelineEvent>;
}

/** A question; and what may wait for the boot of an emulated machine on a busy host, which the controller bounds. */
const [READ_MS, CHANGE_MS] = [120_000, 720_000];

/** Throws `host_unreachable` when nothing runs here. */
export async function connectApi(settings: Settings): Promise<Api> {
  const lock = await readLock(settings);
  if (lock?.url === undefined) {
    throw new PolydevError('host_unreachable', `nothing runs with the data directory ${settings.dataDir}`);
  }
  const url = lock.url;
  const key = (await readFile(settingsPaths(settings).apiKey, 'utf8')).trim();
  const call = async (
    method: string,
    route: string,
    init: { body?: unknown; accept?: string; signal?: AbortSignal },
  ) => {
    const signal = init.signal ?? AbortSignal.timeout(method === 'GET' ? READ_MS : CHANGE_MS);
    const response = await fetch(new URL(route, url), {
      method,
      signal,
      headers: {
        authorization: `Bearer ${key}`,
        ...(init.accept ? { accept: init.accept } : {}),
        ...(init.body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
    }).catch((cause: unknown) => {
      throw new PolydevError('host_unreachable', `the controller at ${url} does not answer`, { cause });
    });
    if (!response.ok) {
      const body: unknown = await response.json().catch(() => ({ status: response.status }));
      throw PolydevError.fromReport(body);
    }
    return response;
  };
  return {
    url,
    publicUrl: lock.publicUrl ?? url,
    async request(method, route, schema, body) {
      const response = await call(method, route, { body });
      const json: unknown = response.status === 204 ? undefined : await response.json();
      return schema.parse(json);
    },
    async text(route) {
      return (await call('GET', route, {})).text();
    },
    async bytes(route) {
      return Buffer.from(await (await call('GET', route, {})).arrayBuffer());
    },
    async *timeline(sessionId, signal) {
      let last = 0;
      while (!signal.aborted) {
        const events = streamEvents(() =>
          call('GET', `/api/auth/session/${sessionId}/events?after=${last}`, {
            accept: 'text/event-stream',
            signal,
          }),
        );
        try {
          for await (const event of events) {
            last = event.seq;
            yield event;
          }
          return;
        } catch (error) {
          if (signal.aborted) return;
          if (error instanceof PolydevError && error.code !== 'host_unreachable') throw error;
          // The controller was restarted or the connection broke: the stream resumes after the last event seen.
          await sleep(500, undefined, { signal }).catch(() => {});
        }
      }
    },
  };
}

async function* streamEvents(open: () => Promise<Response>): AsyncGenerator<TimelineEvent> {
  const response = await open();
  if (response.body === null) return;
  let buffer = '';
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    buffer += chunk;
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop() ?? '';
    for (const block of blocks) {
      const lines = block.split('\n');
      if (lines.some((l) => l.startsWith('event: end'))) return;
      const data = lines
        .filter((l) => l.startsWith('data: '))
        .map((l) => l.slice(6))
        .join('\n');
      if (data === '') continue;
      const event = TimelineEvent.safeParse(JSON.parse(data));
      if (event.success) yield event.data;
    }
  }
}
