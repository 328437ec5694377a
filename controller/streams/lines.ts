/** Server-sent events and NDJSON as byte streams for an HTTP reply. */
import { Readable } from 'node:stream';

const HEARTBEAT_MS = 15_000;

export interface SseEvent {
  readonly id?: string;
  /** Absent: `message`. */
  readonly event?: string;
  readonly data: unknown;
}

/** One event in the wire format of the HTML standard; the data is one line of JSON. */
export function encodeSse(event: SseEvent): string {
  const head = `${event.id === undefined ? '' : `id: ${event.id}\n`}${event.event === undefined ? '' : `event: ${event.event}\n`}`;
  return `${head}data: ${JSON.stringify(event.data)}\n\n`;
}

const SILENT = Symbol('silent');

/**
 * The items as text, with `beat()` in every silence of `beatMs` so that proxies and dead peers are noticed. A beat of
 * undefined breaks the stream off: the reply ends with a broken connection, so that no reader takes what came for all
 * there is. When the reader goes away, `stop` is called and the source is ended.
 */
export function textStream<T>(
  source: AsyncIterable<T>,
  encode: (item: T) => string,
  options: {
    beat: () => Promise<string | undefined>;
    stop: () => void;
    beatMs?: number;
    /** Sent at once, before the first item. */
    opening?: string;
  },
): Readable {
  const beatMs = options.beatMs ?? HEARTBEAT_MS;
  async function* generate(): AsyncGenerator<string> {
    if (options.opening !== undefined) yield options.opening;
    const iterator = source[Symbol.asyncIterator]();
    try {
      let next = iterator.next();
      for (;;) {
        const silence = Promise.withResolvers<typeof SILENT>();
        const timer = setTimeout(() => silence.resolve(SILENT), beatMs);
        const result = await Promise.race([next, silence.promise]).finally(() => clearTimeout(timer));
        if (result === SILENT) {
          const beat = await options.beat();
          if (beat === undefined) {
            next.catch(() => undefined);
            throw new Error('the stream was broken off');
          }
          yield beat;
          continue;
        }
        if (result.done === true) return;
        yield encode(result.value);
        next = iterator.next();
      }
    } finally {
      options.stop();
      await iterator.return?.();
    }
  }
  const readable = Readable.from(generate(), { objectMode: false });
  // The generator may be waiting for the source: stopping the source first lets it finish.
  readable.once('close', options.stop);
  return readable;
}
