/**
 * testkit/fakes/: parts of Polydev for tests of the others, with faults on demand. A fake speaks the real protocol over
 * a real socket.
 *
 * This file is a host service of protocol/host.ts whose machines are fake agents.
 */
import { EventEmitter, once } from 'node:events';
import http from 'node:http';
import type { Duplex } from 'node:stream';
import type { CredentialFile } from '../../protocol/agent.ts';
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import type { HostHealth, HostMachine } from '../../protocol/host.ts';
import { ImageId, MachineId, type ProviderId } from '../../protocol/ids.ts';
import { BEFORE_INIT, type ExitReport, MachineSpec } from '../../protocol/machine.ts';
import { AGENT_VERSION, type AgentBehaviour, type AgentPoint, FakeAgent } from './agent.ts';
import { Gates, type Hold } from './gates.ts';

export type Point = AgentPoint | 'put' | 'delete' | 'hibernate' | 'resume';

interface FakeMachine {
  readonly spec: MachineSpec;
  readonly disk: Map<ProviderId, CredentialFile[]>;
  agent: FakeAgent;
  state: HostMachine['state'];
  exit: ExitReport | null;
}

export interface HostBehaviour extends AgentBehaviour {
  /** PUT of a machine is refused with this. */
  putFailure?: ErrorReport;
  /** What its health says otherwise. */
  health?: Partial<HostHealth>;
  hibernateFailure?: ErrorReport;
  /** The machine is stopped then. */
  resumeFailure?: ErrorReport;
  /** What a look at a machine that is ready sees; a test changes it. */
  trouble?: Diagnosis | undefined;
}

const IMAGE = ImageId.parse('0123456789abcdef');

export class FakeHost implements AsyncDisposable {
  readonly socketPath: string;
  readonly behaviour: HostBehaviour;
  readonly #machines = new Map<MachineId, FakeMachine>();
  /** Machines that were destroyed, in order. */
  readonly destroyed: MachineId[] = [];
  /** `<id>/<name>` of every file of evidence that was handed over, in order. */
  readonly uploads: string[] = [];
  /** Machines that were looked at, in order. */
  readonly looks: MachineId[] = [];
  readonly #gates = new Gates<Point>();
  readonly #changed = new EventEmitter().setMaxListeners(0);
  readonly #server: http.Server;

  private constructor(socketPath: string, behaviour: HostBehaviour) {
    this.socketPath = socketPath;
    this.behaviour = behaviour;
    this.#server = http.createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        const report = PolydevError.from(error);
        if (response.headersSent) response.destroy();
        else response.writeHead(report.status).end(JSON.stringify({ error: report.toReport() }));
      });
    });
    this.#server.on('upgrade', (request: http.IncomingMessage, socket: Duplex) => {
      socket.on('error', () => undefined);
      const [, id] = /^\/v1\/machines\/([^/]+)\/dial/.exec(request.url ?? '') ?? [];
      const machine = this.#machines.get(id as MachineId);
      if (machine?.state !== 'running') {
        const body = JSON.stringify({
          error: new PolydevError('machine_unreachable', `${id} is gone`).toReport(),
        });
        socket.end(
          `HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        );
        // What is still sent is not read by anybody, and would hide the end.
        socket.resume();
        return;
      }
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n');
      machine.agent.accept(socket);
    });
  }

  /** Listens on a unix socket. */
  static async start(socketPath: string, behaviour: HostBehaviour): Promise<FakeHost> {
    const host = new FakeHost(socketPath, behaviour);
    host.#server.listen(socketPath);
    await once(host.#server, 'listening');
    return host;
  }

  /** Makes every machine of this host wait at the point. */
  hold(point: Point): Hold {
    return this.#gates.hold(point);
  }

  get ids(): MachineId[] {
    return [...this.#machines.keys()];
  }

  agent(id: MachineId): FakeAgent {
    return this.#require(id).agent;
  }

  /** The machine ends by itself. */
  kill(id: MachineId): void {
    this.#end(this.#require(id), { code: null, signal: 'SIGKILL', oomKilled: true });
  }

  /** A stopped machine runs, though nobody asked for it. */
  run(id: MachineId): void {
    this.#require(id).state = 'running';
  }

  /** Forgets a machine, as a host does that lost its disk. */
  forget(id: MachineId): void {
    this.#require(id).agent.die();
    this.#machines.delete(id);
    this.#changed.emit('change');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.#machines.values()) machine.agent.die();
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #require(id: MachineId): FakeMachine {
    const machine = this.#machines.get(id);
    if (machine === undefined) throw new PolydevError('not_found', `no machine ${id}`);
    return machine;
  }

  #end(machine: FakeMachine, exit: Omit<ExitReport, 'at'>): void {
    machine.state = 'exited';
    machine.exit = { at: new Date().toISOString(), ...exit };
    machine.agent.die();
    this.#changed.emit('change');
  }

  #show(machine: FakeMachine): HostMachine {
    const { id, kind, realm } = machine.spec;
    return {
      id,
      kind,
      realm,
      state: machine.state,
      driver: 'namespace',
      sleep: 'frozen',
      image: IMAGE,
      address: '10.99.0.2',
      stamps: BEFORE_INIT.map((checkpoint) => ({ checkpoint, at: new Date().toISOString() })),
      exit: machine.exit,
    };
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://host');
    const json = (value: unknown) => response.end(JSON.stringify(value));
    if (url.pathname === '/v1/health') return void json(this.#health());
    if (url.pathname === '/v1/machines') {
      return void json({ machines: [...this.#machines.values()].map((machine) => this.#show(machine)) });
    }
    if (url.pathname === '/v1/doctor') {
      const check = { name: 'root', state: 'ok', evidence: 'runs as root', remedy: null };
      return void json({ at: new Date().toISOString(), ok: true, checks: [check] });
    }
    if (url.pathname === `/v1/images/${IMAGE}`) return void json({ id: IMAGE, agentVersion: AGENT_VERSION });
    const [, noun, name, rest = ''] = /^\/v1\/(machines|evidence)\/([^/]+)(\/.*)?$/.exec(url.pathname) ?? [];
    const id = MachineId.parse(name);
    if (noun === 'evidence') {
      if (request.method === 'PUT') {
        request.resume();
        await once(request, 'end');
        this.uploads.push(`${id}${rest}`);
        return void response.writeHead(204).end();
      }
      if (rest === '/diagnosis') {
        request.resume();
        return void json({ diagnosis: null });
      }
      if (rest === '') {
        return void json({ files: [{ name: 'console.log', bytes: 5, modified: new Date().toISOString() }] });
      }
      return void response.end('hello');
    }
    switch (`${request.method} ${rest}`) {
      case 'PUT ':
        return void json(this.#show(await this.#put(id, request)));
      case 'GET ':
        return void json(this.#show(this.#require(id)));
      case 'POST /look': {
        request.resume();
        this.#require(id);
        this.looks.push(id);
        return void json({ diagnosis: this.behaviour.trouble ?? null });
      }
      case 'GET /console':
        return void response.end('hello');
      case 'GET /exit':
        return void json({ exit: await this.#exit(id, Number(url.searchParams.get('wait') ?? 0), response) });
      case 'POST /stop': {
        const machine = this.#require(id);
        machine.agent.die();
        machine.state = 'stopped';
        return void json(this.#show(machine));
      }
      case 'POST /hibernate': {
        const machine = this.#require(id);
        await this.#gates.pass('hibernate');
        if (this.behaviour.hibernateFailure !== undefined)
          throw PolydevError.fromReport({ error: this.behaviour.hibernateFailure });
        if (machine.state !== 'running' && machine.state !== 'hibernated')
          throw new PolydevError('conflict', `it is ${machine.state} and cannot hibernate`);
        if (machine.state === 'running') machine.agent.die();
        machine.state = 'hibernated';
        return void json(this.#show(machine));
      }
      case 'POST /resume': {
        const machine = this.#require(id);
        await this.#gates.pass('resume');
        if (this.behaviour.resumeFailure !== undefined) {
          machine.state = 'stopped';
          throw PolydevError.fromReport({ error: this.behaviour.resumeFailure });
        }
        machine.state = 'running';
        return void json(this.#show(machine));
      }
      case 'DELETE ': {
        await this.#gates.pass('delete');
        this.#machines.get(id)?.agent.die();
        if (this.#machines.delete(id)) this.destroyed.push(id);
        this.#changed.emit('change');
        return void response.writeHead(204).end();
      }
      default:
        throw new PolydevError('not_found', url.pathname);
    }
  }

  async #put(id: MachineId, request: http.IncomingMessage): Promise<FakeMachine> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const spec = MachineSpec.parse(JSON.parse(Buffer.concat(chunks).toString('utf8')));
    await this.#gates.pass('put');
    if (this.behaviour.putFailure !== undefined)
      throw PolydevError.fromReport({ error: this.behaviour.putFailure });
    const known = this.#machines.get(id);
    if (known?.state === 'running') return known;
    const disk = known?.disk ?? new Map<ProviderId, CredentialFile[]>();
    // Behaviour is read while it runs, so that a test can change it.
    const agent = new FakeAgent(spec, this.behaviour, this.#gates, disk);
    const machine: FakeMachine = { spec, disk, agent, state: 'running', exit: null };
    this.#machines.set(id, machine);
    return machine;
  }

  async #exit(id: MachineId, waitSeconds: number, response: http.ServerResponse): Promise<ExitReport | null> {
    const over = AbortSignal.timeout(waitSeconds * 1000);
    const left = new AbortController();
    response.once('close', () => left.abort());
    for (;;) {
      const machine = this.#require(id);
      if (machine.state !== 'running') return machine.exit;
      try {
        await once(this.#changed, 'change', { signal: AbortSignal.any([over, left.signal]) });
      } catch {
        return null;
      }
    }
  }

  #health(): HostHealth {
    return {
      ok: true,
      version: 'fake',
      driver: 'namespace',
      image: IMAGE,
      machines: this.#machines.size,
      memoryMiB: { total: 8192, available: 4096 },
      diskMiB: { total: 8192, available: 4096 },
      promisedDiskMiB: { used: 0, allowed: 32_768 },
      evidence: { machines: 0, mib: 0, maxMachines: 200, maxMib: 512 },
      load: { one: 0.5, cpus: 2 },
      addresses: { used: this.#machines.size, size: 61 },
      recovered: { adopted: 0, ended: 0 },
      problems: [],
      ...this.behaviour.health,
    };
  }
}
