/** server/: the agent's HTTP: routes, authentication, JSON and streams, on node:http alone. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

export interface Call {
  readonly request: IncomingMessage;
  readonly params: Readonly<Record<string, string>>;
  /** Aborts when the caller is gone. */
  readonly signal: AbortSignal;
}
/** Answers with a JSON value, `undefined` for 204, or writes the response itself and returns `HANDLED`. */
export type Handler = (call: Call, response: ServerResponse) => Promise<unknown> | unknown;
/** Takes over the connection. Must check everything before it calls `accept`, which sends the 101. */
export type UpgradeHandler = (call: Call, accept: () => Duplex) => Promise<void> | void;

export const HANDLED = Symbol('handled');

interface Route<H> {
  readonly method: string;
  readonly parts: readonly string[];
  readonly handler: H;
}

export interface Match<H> {
  readonly handler: H;
  readonly params: Readonly<Record<string, string>>;
}

/** Routes by method and path; a part that starts with `:` takes one segment, decoded. */
export class Router<H> {
  readonly #routes: Route<H>[] = [];

  add(method: string, pattern: string, handler: H): this {
    this.#routes.push({ method, parts: pattern.split('/'), handler });
    return this;
  }

  match(method: string, pathname: string): Match<H> | undefined {
    const parts = pathname.split('/');
    for (const route of this.#routes) {
      if (route.method !== method || route.parts.length !== parts.length) continue;
      const params = bind(route.parts, parts);
      if (params !== undefined) return { handler: route.handler, params };
    }
    return undefined;
  }
}

function bind(pattern: readonly string[], parts: readonly string[]): Record<string, string> | undefined {
  const params: Record<string, string> = {};
  for (const [index, expected] of pattern.entries()) {
    const part = parts[index] ?? '';
    if (!expected.startsWith(':')) {
      if (expected !== part) return undefined;
      continue;
    }
    try {
      params[expected.slice(1)] = decodeURIComponent(part);
    } catch {
      return undefined;
    }
  }
  return params;
}
