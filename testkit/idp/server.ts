/**
 * The TLS server of the test identity provider: routes by host name, bounds what it reads, and logs one line per request
 * that holds neither a query string nor anything a person or a CLI sent.
 */
import { chmod, mkdir } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { certificates } from './certificates.ts';
import { codex } from './codex.ts';
import type { Impersonation, Reply, Request } from './http.ts';
import { json } from './http.ts';
import { Store } from './store.ts';
import { TokenMint } from './tokens.ts';

const MAX_BODY = 32 * 2 ** 20;
const REQUEST_MS = 30_000;

/** One request as it is logged. `path` has no query; `note` says what came of it. */
export interface LogLine {
  time: string;
  host: string;
  method: string;
  path: string;
  status: number;
  ms: number;
  note?: string;
}

/** How to start the test identity provider. */
export interface IdpOptions {
  /** Address to listen on, e.g. `10.0.0.1` or `127.0.0.1`. */
  listen: string;
  /** Port; the CLIs need 443, tests may use 0 (any free one). */
  port: number;
  /** Directory for certificates and memory; made with mode 0700. */
  state: string;
  /** Literal text inside every token; see `tokens.ts` for its shape. */
  canary: string;
  log: (line: LogLine) => void;
  signal: AbortSignal;
}

/** A running test identity provider; disposing it closes the port and every connection. */
export interface Idp extends AsyncDisposable {
  port: number;
  caPath: string;
  hosts: string[];
}

/**
 * Starts the test identity provider; resolves when it accepts connections.
 *
 * @throws when the address cannot be bound, `openssl` fails, or the state directory holds something foreign.
 */
export async function startIdp(options: IdpOptions): Promise<Idp> {
  const { state, signal, listen, log } = options;
  await mkdir(state, { recursive: true, mode: 0o700 });
  await chmod(state, 0o700);
  const store = new Store(state);
  const providers = [codex(store, new TokenMint(store.signingKey, options.canary))];
  const hosts = providers.flatMap((provider) => provider.hosts);
  const { key, cert, caPath } = await certificates(state, hosts, signal);
  const server = createServer({ key, cert, requestTimeout: REQUEST_MS }, (message, response) => {
    void respond(providers, message, response, log);
  });
  // Codex tries a web socket first; 426 makes it fall back to plain POST at once, 404 would cost it five retries.
  server.on('upgrade', (message, socket) => {
    log(logLine(message, Date.now(), 426, 'web socket refused'));
    socket.on('error', () => socket.destroy());
    socket.end('HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });
  const port = await listening(server, listen, options.port);
  return {
    port,
    caPath,
    hosts,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function listening(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

const hostOf = (message: IncomingMessage) => (message.headers.host ?? '').replace(/:\d+$/, '').toLowerCase();
const pathOf = (message: IncomingMessage) => (message.url ?? '/').replace(/[?#].*$/s, '').slice(0, 200);

function logLine(message: IncomingMessage, since: number, status: number, note?: string): LogLine {
  const base = { host: hostOf(message), method: message.method ?? '', path: pathOf(message), status };
  return { time: new Date().toISOString(), ...base, ms: Date.now() - since, ...(note ? { note } : {}) };
}

async function respond(
  providers: Impersonation[],
  message: IncomingMessage,
  response: ServerResponse,
  log: (line: LogLine) => void,
): Promise<void> {
  const since = Date.now();
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  let status = 500;
  let note: string | undefined;
  try {
    const reply = await answer(
      providers,
      message,
      AbortSignal.any([gone.signal, AbortSignal.timeout(REQUEST_MS)]),
    );
    ({ status, note } = reply);
    response.writeHead(status, reply.headers);
    if (message.method === 'HEAD' || reply.body === undefined) response.end();
    else if (typeof reply.body === 'string') response.end(reply.body);
    else await pipeline(reply.body, response);
  } catch (error) {
    // Only the kind of error: its text could quote what was sent.
    note = gone.signal.aborted
      ? 'the caller went away'
      : `failed: ${error instanceof Error ? error.name : 'unknown'}`;
    if (response.headersSent) response.destroy();
    else response.writeHead(500).end();
  }
  log(logLine(message, since, status, note));
}

async function answer(
  providers: Impersonation[],
  message: IncomingMessage,
  signal: AbortSignal,
): Promise<Reply> {
  const host = hostOf(message);
  const provider = providers.find(({ hosts }) => hosts.includes(host));
  if (!provider) return json(421, { error: 'no such host here' }, 'foreign host');
  const body = await read(message);
  if (!body) return json(413, { error: 'too large' });
  const target = message.url ?? '/';
  if (!URL.canParse(target, `https://${host}`)) return json(400, { error: 'bad target' });
  const { method = 'GET', headers } = message;
  const request: Request = { host, method, url: new URL(target, `https://${host}`), headers, body, signal };
  return (await provider.handle(request)) ?? json(404, { error: 'not found' });
}

async function read(message: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message) {
    size += chunk.length;
    if (size > MAX_BODY) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
