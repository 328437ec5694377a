/** The small HTTP vocabulary between the server of the test identity provider and its per-provider files. */
import type { IncomingHttpHeaders } from 'node:http';
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib';

/** One request, its body read whole (bounded) and decompressed. */
export interface Request {
  host: string;
  method: string;
  url: URL;
  headers: IncomingHttpHeaders;
  body: Buffer;
  signal: AbortSignal;
}

/** One answer. `note` goes to the log line and must never hold a code, token or anything a person typed. */
export interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: string | AsyncIterable<string>;
  note?: string;
}

/** A provider's half of the test identity provider. */
export interface Impersonation {
  hosts: readonly string[];
  /** Answers, or `undefined` for what it does not know: the server then says 404 at once. */
  handle(request: Request): Promise<Reply | undefined>;
}

const NO_STORE = { 'cache-control': 'no-store' };

/** A JSON answer. */
export function json(status: number, value: unknown, note?: string): Reply {
  const headers = { 'content-type': 'application/json', ...NO_STORE };
  return { status, headers, body: JSON.stringify(value), ...(note ? { note } : {}) };
}

/** An HTML page that runs no script and can be framed by nobody. */
export function html(status: number, page: string, note?: string): Reply {
  const headers = {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy':
      "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    ...NO_STORE,
  };
  return { status, headers, body: page, ...(note ? { note } : {}) };
}

/** Sends the browser on with GET. */
export function redirect(location: string, note?: string): Reply {
  return { status: 303, headers: { location, ...NO_STORE }, ...(note ? { note } : {}) };
}

/** The fields of a form or of a flat JSON object; what is not a string is left out. */
export function fields(request: Request): Record<string, string> {
  const text = request.body.toString('utf8');
  if (!isJson(request)) return Object.fromEntries(new URLSearchParams(text));
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

/** Whether the request says that its body is JSON. */
export function isJson(request: Request): boolean {
  return (request.headers['content-type'] ?? '').startsWith('application/json');
}

/** The JSON value of a text, or `undefined` when it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Undoes `content-encoding`; bounded, since a few bytes can unpack to gigabytes. */
export function decoded(body: Buffer, encoding: string | undefined, maxOutputLength: number): Buffer {
  switch (encoding) {
    case undefined:
    case 'identity':
      return body;
    case 'gzip':
      return gunzipSync(body, { maxOutputLength });
    case 'br':
      return brotliDecompressSync(body, { maxOutputLength });
    case 'zstd':
      return zstdDecompressSync(body, { maxOutputLength });
    default:
      throw new Error(`content-encoding ${encoding} is not known`);
  }
}
