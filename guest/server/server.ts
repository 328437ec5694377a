import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentLog } from '../log.ts';
import { authenticate } from './auth.ts';
import { HANDLED, type Handler, type Router, type UpgradeHandler } from './router.ts';

export interface Routes {
  readonly calls: Router<Handler>;
  readonly upgrades: Router<UpgradeHandler>;
}

/** What the agent knows of its token. Whoever claims a machine from a pool gives it another one. */
export interface AgentToken {
  /** SHA-256, hex. */
  hash: string;
}

/** One HTTP server over the agent's routes. Several can share the routes, one for each place the agent listens. */
export function createAgentServer(routes: Routes, token: AgentToken, log: AgentLog): Server {
  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    void answer(routes.calls, token, log, request, response);
  });
  server.on('upgrade', (request, socket, head) => {
    void upgrade(routes.upgrades, token, log, request, socket, head);
  });
  return server;
}

function pathname(request: IncomingMessage): string {
  const target = request.url ?? '/';
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}

function report(thrown: unknown, log: AgentLog, request: IncomingMessage): PolydevError {
  const error = PolydevError.from(thrown);
  if (error.code === 'internal') {
    log.add('http', `${request.method} ${pathname(request)}: ${error.message}`);
  }
  return error;
}

async function answer(
  router: Router<Handler>,
  token: AgentToken,
  log: AgentLog,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  try {
    authenticate(request.headers.authorization, token.hash);
    const match = router.match(request.method ?? 'GET', pathname(request));
    if (match === undefined) throw new PolydevError('not_found', 'the agent has no such call');
    const call = { request, params: match.params, signal: gone.signal };
    const value = await match.handler(call, response);
    if (value === HANDLED) return;
    if (value === undefined) {
      response.writeHead(204).end();
    } else {
      sendJson(response, 200, value);
    }
  } catch (thrown) {
    const error = report(thrown, log, request);
    if (response.headersSent) response.destroy();
    else {
      // What is left of a refused body is not read: the connection cannot be used again.
      if (!request.complete) response.setHeader('connection', 'close');
      sendJson(response, error.status, { error: error.toReport() });
    }
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': body.length,
    'cache-control': 'no-store',
  });
  response.end(body);
}

async function upgrade(
  router: Router<UpgradeHandler>,
  token: AgentToken,
  log: AgentLog,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const gone = new AbortController();
  socket.once('close', () => gone.abort());
  socket.on('error', () => socket.destroy());
  let accepted = false;
  try {
    authenticate(request.headers.authorization, token.hash);
    const match = router.match(request.method ?? 'GET', pathname(request));
    if (match === undefined) throw new PolydevError('not_found', 'the agent has no such stream');
    await match.handler({ request, params: match.params, signal: gone.signal }, () => {
      accepted = true;
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
      if (head.length > 0) socket.unshift(head);
      return socket;
    });
  } catch (thrown) {
    const error = report(thrown, log, request);
    if (accepted) {
      socket.destroy();
      return;
    }
    const body = JSON.stringify({ error: error.toReport() });
    socket.end(
      `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? 'Error'}\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
    // What is still sent is not read by anybody, and would hide the end.
    socket.resume();
  }
}
