import { once } from 'node:events';
import type { ServerResponse } from 'node:http';

/** A response of JSON lines. Each line leaves at once; `write` waits while the reader is slow. */
export class NdjsonResponse {
  readonly #response: ServerResponse;
  readonly #signal: AbortSignal;

  constructor(response: ServerResponse, signal: AbortSignal) {
    this.#response = response;
    this.#signal = signal;
    response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    response.flushHeaders();
  }

  /** False when the reader is gone. */
  async write(value: unknown): Promise<boolean> {
    if (this.#signal.aborted) return false;
    if (this.#response.write(`${JSON.stringify(value)}\n`)) return true;
    try {
      await once(this.#response, 'drain', { signal: this.#signal });
      return true;
    } catch {
      return false;
    }
  }

  end(): void {
    this.#response.end();
  }
}

/** Sends every event and ends the response. */
export async function sendEvents(
  response: ServerResponse,
  signal: AbortSignal,
  events: AsyncIterable<unknown>,
): Promise<void> {
  const lines = new NdjsonResponse(response, signal);
  for await (const event of events) if (!(await lines.write(event))) break;
  lines.end();
}
