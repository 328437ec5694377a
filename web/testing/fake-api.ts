/** A small API with known data in front of the built page. What a login does is the test's to say, step by step. */
import fastifyStatic from '@fastify/static';
import fastifyWebsocket from '@fastify/websocket';
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { CONTENT_SECURITY_POLICY } from '../../controller/api/headers.ts';
import { AuthStart, Session, SessionInput, TicketRequest, type TimelineEvent } from '../../protocol/api.ts';
import { DIAGNOSES, type DiagnosisReply } from '../../protocol/diagnoses.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { newMachineId } from '../../protocol/ids.ts';
import { isFinal, machineActions, type SessionState, sessionActions } from '../../protocol/lifecycles.ts';
import { SettingsPatch } from '../../protocol/settings.ts';
import { fixtures, newSession, PERSON } from './fixtures.ts';
import { bridgeDesktop, bridgeTerminal } from './streams.ts';

export interface FakeApi extends AsyncDisposable {
  readonly url: string;
  readonly data: ReturnType<typeof fixtures>;
  /** What was sent to POST …/input, oldest first. */
  readonly inputs: readonly string[];
  signedIn: boolean;
  /** While true, calls under /api are answered like by a reverse proxy whose target is down. */
  down: boolean;
  /** The newest session. */
  newest(): Session;
  /** Brings a session into a state, with what else is true from then on. */
  enter(id: string, state: SessionState, change?: Partial<Session>): void;
  /** Adds an event of the session's browser machine. */
  machineEvent(id: string, kind: TimelineEvent['kind'], name: string, durationMs?: number): void;
  /** Closes every open terminal stream as a broken network would. */
  breakTerminals(): void;
}

interface FakeApiOptions {
  /** The built page. */
  readonly dist: string;
  /** Unix socket of an RFB server for the live desktop. */
  readonly rfbSocket?: string;
}

/** Starts the API on a free loopback port. */
export async function startFakeApi({ dist, rfbSocket }: FakeApiOptions): Promise<FakeApi> {
  const data = fixtures();
  const inputs: string[] = [];
  const listeners = new Set<(id: string) => void>();
  const terminals = new Set<{ terminate(): void }>();
  const app = Fastify({ forceCloseConnections: true });
  let address = '';

  const find = <T extends { id: string }>(list: T[], id: string): T => {
    const found = list.find((item) => item.id === id);
    if (found === undefined) throw new PolydevError('not_found', `There is nothing with the id ${id}.`);
    return found;
  };
  const record = (id: string, event: Omit<TimelineEvent, 'seq' | 'at' | 'detail'>) => {
    const { timeline } = find(data.sessions, id);
    timeline.push({ seq: timeline.length + 1, at: new Date().toISOString(), detail: null, ...event });
    for (const listener of listeners) listener(id);
  };

  const api: FakeApi = {
    get url() {
      return address;
    },
    data,
    inputs,
    signedIn: true,
    down: false,
    newest: () => Session.parse(data.sessions[0]),
    enter(id, state, change = {}) {
      const session = find(data.sessions, id);
      const endedAt = isFinal(state) ? new Date().toISOString() : null;
      Object.assign(session, { state, actions: [...sessionActions(state)], endedAt }, change);
      Session.parse(session);
      record(id, { subject: 'session', id, kind: 'state', name: state, durationMs: null });
    },
    machineEvent(id, kind, name, durationMs) {
      const machine = find(data.sessions, id).browserMachineId ?? newMachineId();
      record(id, { subject: 'machine', id: machine, kind, name, durationMs: durationMs ?? null });
    },
    breakTerminals() {
      for (const terminal of terminals) terminal.terminate();
    },
    async [Symbol.asyncDispose]() {
      for (const terminal of terminals) terminal.terminate();
      await app.close();
    },
  };

  app.addHook('onRequest', async (request, reply) => {
    reply.header('content-security-policy', CONTENT_SECURITY_POLICY);
    if (!request.url.startsWith('/api/')) return;
    if (api.down) return reply.code(502).type('text/html').send('<h1>502 Bad Gateway</h1>');
    if (!api.signedIn) throw new PolydevError('unauthenticated', 'Nobody is signed in.');
  });
  app.setErrorHandler((thrown, _request, reply) => {
    const error = PolydevError.from(thrown);
    return reply.code(error.status).send({ error: { ...error.toReport(), requestId: 'req-1' } });
  });
  await app.register(fastifyWebsocket);
  await app.register(fastifyStatic, { root: dist });
  app.setNotFoundHandler((request, reply) => {
    if (request.url.startsWith('/api/')) throw new PolydevError('not_found', `No route ${request.url}.`);
    return reply.sendFile('index.html');
  });

  sessionRoutes(app, api, listeners, find);
  machineRoutes(app, api, find);

  app.get('/api/clean-up', () => ({
    settings: data.settings,
    kept: data.machines.filter(({ removeAt }) => removeAt !== null),
    orphans: [],
  }));
  app.patch('/api/settings', ({ body }) => Object.assign(data.settings, SettingsPatch.parse(body)));
  app.get('/api/me', () => ({ userId: PERSON, role: 'operator', realms: ['internet', 'test'] }));
  app.post('/api/sign-out', (_request, reply) => {
    api.signedIn = false;
    return reply.code(204).send();
  });
  app.get('/api/providers', () => ({ providers: data.providers(data.credentials) }));
  app.get('/api/hosts', () => ({ hosts: data.hosts }));
  app.get<ById>('/api/hosts/:id/doctor', ({ params }) => {
    find(data.hosts, params.id);
    return data.doctor(params.id);
  });
  app.get('/api/credentials', () => ({ credentials: data.credentials }));
  app.delete<{ Params: { id: string } }>('/api/credentials/:id', ({ params }, reply) => {
    data.credentials.splice(data.credentials.indexOf(find(data.credentials, params.id)), 1);
    return reply.code(204).send();
  });

  const tickets = new Map<string, TicketRequest>();
  app.post('/api/tickets', ({ body }) => {
    const ticket = `t${tickets.size + 1}`;
    tickets.set(ticket, TicketRequest.parse(body));
    const expiresAt = new Date(Date.now() + 60_000).toISOString();
    return { ticket, expiresAt, webSocketPath: `/api/streams?ticket=${ticket}` };
  });
  app.get<{ Querystring: { ticket: string } }>('/api/streams', { websocket: true }, (socket, { query }) => {
    const request = tickets.get(query.ticket);
    tickets.delete(query.ticket);
    if (request?.purpose === 'desktop' && rfbSocket !== undefined) bridgeDesktop(socket, rfbSocket);
    else if (request?.purpose === 'terminal') {
      terminals.add(socket);
      bridgeTerminal(socket);
    } else socket.close(1011);
  });

  address = await app.listen({ host: '127.0.0.1', port: 0 });
  return api;
}

type Find = <T extends { id: string }>(list: T[], id: string) => T;
interface ById {
  Params: { id: string };
}

function sessionRoutes(app: FastifyInstance, api: FakeApi, listeners: Set<(id: string) => void>, find: Find) {
  const { sessions } = api.data;
  app.get('/api/auth/sessions', () => ({ sessions }));
  app.get<ById>('/api/auth/session/:id', ({ params }) => find(sessions, params.id));
  app.post('/api/auth/start', ({ body }) => {
    const { realm = 'internet', account = 'default' } = AuthStart.parse(body);
    if (sessions.some((session) => session.endedAt === null)) {
      throw new PolydevError('login_in_progress', 'A login of OpenAI Codex is under way.');
    }
    const session = newSession(realm, account);
    sessions.unshift(session);
    api.enter(session.id, 'queued');
    return session;
  });
  app.delete<ById>('/api/auth/session/:id', ({ params }) => {
    const error = new PolydevError('login_cancelled', 'The person cancelled this login.').toReport();
    api.enter(params.id, 'cancelled', { error });
    return find(sessions, params.id);
  });
  app.post<ById>('/api/auth/session/:id/input', ({ body }, reply) => {
    (api.inputs as string[]).push(SessionInput.parse(body).text);
    return reply.code(204).send();
  });
  app.get<ById>('/api/auth/session/:id/events', ({ params, headers }, reply) => {
    const session = find(sessions, params.id);
    let sent = Number(headers['last-event-id'] ?? 0);
    reply.hijack();
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const flush = () => {
      for (const event of session.timeline.slice(sent)) {
        reply.raw.write(`id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`);
        sent = event.seq;
      }
      if (isFinal(session.state)) reply.raw.end(`event: end\ndata: ${JSON.stringify(session)}\n\n`);
    };
    const listener = (id: string) => {
      if (id === session.id) flush();
    };
    listeners.add(listener);
    reply.raw.on('close', () => listeners.delete(listener));
    flush();
  });
}

const CONSOLE = `[    0.000] polydev: machine of kind browser, realm internet
[    0.049] init: mounting /proc /sys /dev
[    0.212] polydev-agent: listening on the channel
[    0.230] polydev-agent: starting Xvnc :1 -geometry 1280x720
[    0.262] Xvnc: Fatal server error: Cannot establish any listening sockets
[    0.263] polydev-agent: desktop: Xvnc exited with code 1
`;
const EVIDENCE: Readonly<Record<string, string>> = {
  'console.log': CONSOLE,
  'agent.log':
    '{"level":30,"msg":"agent 0.1.0 listening"}\n{"level":50,"msg":"desktop: Xvnc exited with code 1"}\n',
};

function machineRoutes(app: FastifyInstance, { data: { machines } }: FakeApi, find: Find) {
  const text = (reply: FastifyReply, body: string) => reply.type('text/plain; charset=utf-8').send(body);
  app.get('/api/machines', () => ({ machines }));
  app.get<ById>('/api/machines/:id', ({ params }) => find(machines, params.id));
  app.get<ById>('/api/machines/:id/console', (_request, reply) => text(reply, CONSOLE));
  app.get<ById>('/api/machines/:id/evidence', () => ({
    files: Object.entries(EVIDENCE).map(([name, body]) => ({
      name,
      bytes: body.length,
      modified: new Date().toISOString(),
    })),
  }));
  app.get<ById>('/api/machines/:id/diagnosis', ({ params }): DiagnosisReply => {
    const { error, stamps } = find(machines, params.id);
    if (error === null) return { diagnosis: null };
    const lines = [
      { source: 'error', text: error.message },
      { source: 'console.log', text: 'Xvnc: Fatal server error: Cannot establish any listening sockets' },
    ];
    const checkpoint = stamps.at(-1)?.checkpoint ?? null;
    const name = 'xvnc_failed';
    return { diagnosis: { name, ...DIAGNOSES[name], lines, checkpoint, at: new Date().toISOString() } };
  });
  app.get<{ Params: { id: string; name: string } }>('/api/machines/:id/evidence/:name', ({ params }, reply) =>
    text(reply, EVIDENCE[params.name] ?? ''),
  );
  const become = (id: string, state: 'ready' | 'hibernated' | 'stopped') => {
    const machine = find(machines, id);
    return Object.assign(machine, { state, actions: [...machineActions(machine.kind, state)] });
  };
  app.post<ById>('/api/machines/:id/start', ({ params }) => become(params.id, 'ready'));
  app.post<ById>('/api/machines/:id/hibernate', ({ params }) => become(params.id, 'hibernated'));
  app.post<ById>('/api/machines/:id/resume', ({ params }) => become(params.id, 'ready'));
  app.post<ById>('/api/machines/:id/stop', ({ params }) => become(params.id, 'stopped'));
  app.delete<ById>('/api/machines/:id', ({ params }, reply) => {
    machines.splice(machines.indexOf(find(machines, params.id)), 1);
    return reply.code(204).send();
  });
}
