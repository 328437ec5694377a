/** An agent of protocol/agent.ts inside the test's process: no desktop and no CLI, but the same answers. */
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import http from 'node:http';
import type { Duplex } from 'node:stream';
import {
  type AgentHealth,
  type BootEvent,
  CredentialBundle,
  type CredentialFile,
  type CredentialStatus,
  type ExecEvent,
  ExecRequest,
  LoginStart,
  type LoginStatus,
  Woke,
} from '../../protocol/agent.ts';
import { type ErrorCode, type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import type { ProviderId } from '../../protocol/ids.ts';
import { BEFORE_INIT, type Checkpoint, checklist, type MachineSpec } from '../../protocol/machine.ts';
import { providers } from '../../providers/index.ts';

/** What images are verified with, as the fake host says. */
export const AGENT_VERSION = '1.2.3+fake';

/** What the fake does; a test changes it before the machine is started. */
export interface AgentBehaviour {
  /** The boot stops after this checkpoint without a word. */
  stallAfter?: Checkpoint;
  /** The boot ends with this error after the checkpoint `agent`. */
  bootFailure?: ErrorReport;
  /** What it says of its desktop after the boot. */
  healthFailure?: ErrorReport | undefined;
  /** What the CLI writes when the person signs in. */
  files: CredentialFile[];
  verify: { output: string; code: number };
  /** What it says that the login page is; default: the provider's. */
  loginUrl?: string;
  /** What it says that it is; default AGENT_VERSION. */
  version?: string;
  /** Credential files cannot be deleted. */
  deleteFailure?: boolean;
}

function loginUrlOf(session: string): string {
  const url = new URL('https://auth.openai.com/oauth/authorize');
  url.searchParams.set('redirect_uri', 'http://localhost:1455/auth/callback');
  url.searchParams.set('state', session);
  url.searchParams.set('code_challenge', 'of-the-test');
  return url.href;
}

export type AgentPoint = 'woke' | 'boot' | 'login' | 'files' | 'install' | 'exec';

interface AgentGates {
  pass(point: AgentPoint): Promise<void>;
}

export class FakeAgent {
  readonly gates: AgentGates;
  /** Files below the person's home, by provider. */
  readonly disk: Map<ProviderId, CredentialFile[]>;
  readonly inputs: string[] = [];
  readonly #spec: MachineSpec;
  #tokenHash: string;
  readonly #behaviour: AgentBehaviour;
  readonly #server: http.Server;
  readonly #changed = new EventEmitter().setMaxListeners(0);
  readonly #connections = new Set<Duplex>();
  #login: LoginStatus | undefined;
  /** How often the CLI was started: single flight must keep it at one. */
  loginStarts = 0;
  /** How often it was told that it had slept. */
  wakes = 0;

  constructor(
    spec: MachineSpec,
    behaviour: AgentBehaviour,
    gates: AgentGates,
    disk: Map<ProviderId, CredentialFile[]>,
  ) {
    this.#spec = spec;
    this.#tokenHash = spec.agentTokenHash;
    this.#behaviour = behaviour;
    this.gates = gates;
    this.disk = disk;
    this.#server = http.createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        const report = PolydevError.from(error);
        if (response.headersSent) response.destroy();
        else response.writeHead(report.status).end(JSON.stringify({ error: report.toReport() }));
      });
    });
    this.#server.on('upgrade', (request: http.IncomingMessage, socket: Duplex) => {
      socket.on('error', () => undefined);
      if (!this.#authorized(request)) {
        socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n').resume();
        return;
      }
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n');
      // What is sent comes back, after a greeting that names the stream.
      socket.write(request.url?.includes('vnc') === true ? 'RFB 003.008\n' : '$ ');
      socket.pipe(socket);
    });
  }

  /** A channel that was dialled. */
  accept(socket: Duplex): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('error', () => undefined);
    this.#server.emit('connection', socket);
  }

  /** The machine ended: every channel breaks. */
  die(): void {
    for (const socket of this.#connections) socket.destroy();
  }

  get login(): LoginStatus | undefined {
    return this.#login;
  }

  /** The person signs in: the CLI writes its files. */
  signIn(): void {
    const status = this.#requireLogin();
    this.disk.set(status.provider, this.#behaviour.files);
    this.#setLogin({ ...status, state: 'succeeded' });
  }

  /** The login fails, as the agent would name it. */
  failLogin(code: ErrorCode): void {
    const error = new PolydevError(code, 'as the test wishes').toReport();
    this.#setLogin({ ...this.#requireLogin(), state: 'failed', error });
  }

  #requireLogin(): LoginStatus {
    if (this.#login === undefined) throw new PolydevError('not_found', 'no login was started');
    return this.#login;
  }

  #setLogin(status: LoginStatus): void {
    this.#login = status;
    this.#changed.emit('change');
  }

  #authorized(request: http.IncomingMessage): boolean {
    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? '';
    return createHash('sha256').update(token).digest('hex') === this.#tokenHash;
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    if (!this.#authorized(request)) throw new PolydevError('unauthenticated', 'wrong token');
    const route = `${request.method} ${new URL(request.url ?? '/', 'http://agent').pathname}`;
    const json = (value: unknown) => response.end(JSON.stringify(value));
    const gone = () => response.writeHead(204).end();
    const body = async (): Promise<unknown> => {
      const chunks: Buffer[] = [];
      for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
      return JSON.parse(Buffer.concat(chunks).toString('utf8'));
    };
    const [, provider, files] = /^\w+ \/v1\/credentials\/(codex)(\/files)?$/.exec(route) ?? [];
    if (provider !== undefined) {
      return this.#credentials('codex', `${request.method}${files ?? ''}`, body, response);
    }
    switch (route) {
      case 'GET /health': {
        const { version = AGENT_VERSION, healthFailure: failure = null } = this.#behaviour;
        const { id: machineId, kind } = this.#spec;
        const ready = failure === null;
        const health: AgentHealth = { version, machineId, kind, uptimeMs: 1000, stamps: [], ready, failure };
        return void json(health);
      }
      case 'GET /v1/log':
        return void response.end('a line of the agent\n');
      case 'POST /v1/woke': {
        const { time, agentTokenHash } = Woke.parse(await body());
        await this.gates.pass('woke');
        this.wakes += 1;
        if (agentTokenHash !== undefined) this.#tokenHash = agentTokenHash;
        const now = Date.now();
        const aheadMs = now - Date.parse(time);
        return void json({ time: new Date(now).toISOString(), aheadMs, clockSet: false, reseeded: false });
      }
      case 'GET /v1/clock':
        return void json({ uptimeMs: performance.now() });
      case 'GET /v1/boot':
        return this.#boot(response);
      case 'POST /v1/login': {
        await this.gates.pass('login');
        const { session, provider: asked } = LoginStart.parse(await body());
        if (this.#login === undefined) {
          this.loginStarts++;
          const url = this.#behaviour.loginUrl ?? loginUrlOf(session);
          this.#setLogin({ session, provider: asked, state: 'waiting_for_person', url, error: null });
        }
        return void json(this.#login);
      }
      case 'GET /v1/login/events':
        return this.#loginEvents(response);
      case 'POST /v1/login/input': {
        const value = await body();
        this.inputs.push(JSON.stringify(value));
        return void json(this.#requireLogin());
      }
      case 'POST /v1/exec': {
        const { argv } = ExecRequest.parse(await body());
        await this.gates.pass('exec');
        const { output, code } = this.#behaviour.verify;
        const said = argv[0] === 'echo' ? `${argv.slice(1).join(' ')}\n` : output;
        const events: ExecEvent[] = [
          { type: 'stderr', text: said },
          { type: 'exit', code: argv[0] === 'echo' ? 0 : code, signal: null, timedOut: false },
        ];
        return void response.end(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
      }
      case 'POST /v1/terminals':
        return void json({ id: 't1' });
      case 'POST /v1/terminals/t1/size':
      case 'DELETE /v1/terminals/t1':
        return void gone();
      default:
        throw new PolydevError('not_found', route);
    }
  }

  async #boot(response: http.ServerResponse): Promise<void> {
    const send = (event: BootEvent) => response.write(`${JSON.stringify(event)}\n`);
    for (const checkpoint of checklist(this.#spec.kind)) {
      if (BEFORE_INIT.includes(checkpoint)) continue;
      send({ type: 'stamp', stamp: { checkpoint, at: new Date().toISOString() } });
      if (checkpoint === 'agent') {
        await this.gates.pass('boot');
        if (this.#behaviour.bootFailure !== undefined) {
          send({ type: 'failed', error: this.#behaviour.bootFailure });
          response.end();
          return;
        }
      }
      // The stream stays open: the boot goes no further.
      if (checkpoint === this.#behaviour.stallAfter) return;
    }
    send({ type: 'ready' });
    response.end();
  }

  async #loginEvents(response: http.ServerResponse): Promise<void> {
    const over = new AbortController();
    response.once('close', () => over.abort());
    for (;;) {
      const status = this.#requireLogin();
      response.write(`${JSON.stringify(status)}\n`);
      if (status.state !== 'starting' && status.state !== 'waiting_for_person') break;
      try {
        await once(this.#changed, 'change', { signal: over.signal });
      } catch {
        return;
      }
    }
    response.end();
  }

  async #credentials(
    provider: ProviderId,
    what: string,
    body: () => Promise<unknown>,
    response: http.ServerResponse,
  ): Promise<void> {
    const files = this.disk.get(provider);
    switch (what) {
      case 'GET/files':
        await this.gates.pass('files');
        if (files === undefined) throw new PolydevError('credential_missing', 'no files');
        response.end(JSON.stringify({ provider, files }));
        return;
      case 'PUT': {
        const bundle = CredentialBundle.parse(await body());
        await this.gates.pass('install');
        this.disk.set(provider, bundle.files);
        break;
      }
      case 'DELETE':
        if (this.#behaviour.deleteFailure === true) throw new PolydevError('internal', 'the disk is broken');
        this.disk.delete(provider);
        response.writeHead(204).end();
        return;
    }
    const now = this.disk.get(provider);
    const check = now === undefined ? undefined : providers[provider].credential.check(now);
    const status: CredentialStatus = {
      provider,
      state: check?.state ?? 'absent',
      facts: check?.state === 'complete' ? check.facts : null,
      problem: check?.state === 'incomplete' ? check.problem : null,
    };
    response.end(JSON.stringify(status));
  }
}
