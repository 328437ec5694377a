/**
 * testkit/fakes/: in-memory implementations of the controller's seams, for tests of what is built on them.
 *
 * This one is controller/services.ts: it keeps sessions, machines and credentials in maps and moves bytes for real.
 * Tests move it on with the functions of `FakeServices` (an event, an ending, bytes of a machine).
 */
import { Duplex, PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { createMeters } from '../../controller/meters.ts';
import type {
  Credentials,
  Hosts,
  LoginRequest,
  Logins,
  Machines,
  Operation,
  Services,
  Statistics,
  Terminal,
} from '../../controller/services.ts';
import type { ExecEvent, ExecRequest, TerminalSize } from '../../protocol/agent.ts';
import type { Credential, Host, Machine, Session, TimelineEvent } from '../../protocol/api.ts';
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import type { DoctorReport } from '../../protocol/doctor.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { EvidenceFile } from '../../protocol/host.ts';
import {
  type CredentialId,
  type MachineId,
  newCredentialId,
  newMachineId,
  newSessionId,
  type SessionId,
  UserId,
} from '../../protocol/ids.ts';
import {
  isFinal,
  type MachineState,
  machineActions,
  type SessionState,
  sessionActions,
} from '../../protocol/lifecycles.ts';
import { SETTINGS_DEFAULTS, Settings } from '../../protocol/settings.ts';

/** The far end of a stream that the API opened: what the guest would read and write. */
export interface FarEnd {
  readonly near: Duplex;
  readonly far: Duplex;
}

/** Two joined duplexes: what is written to one is read from the other; destroying one ends the other. */
export function duplexPair(highWaterMark = 65_536): FarEnd {
  const out = new PassThrough({ highWaterMark });
  const back = new PassThrough({ highWaterMark });
  const near = Duplex.from({ writable: out, readable: back });
  const far = Duplex.from({ writable: back, readable: out });
  near.on('error', () => undefined);
  far.on('error', () => undefined);
  near.on('close', () => far.destroy());
  far.on('close', () => near.destroy());
  return { near, far };
}

const now = () => new Date().toISOString();

export class FakeServices implements Services {
  readonly sessions = new Map<SessionId, Session>();
  readonly machineMap = new Map<MachineId, Machine>();
  readonly credentialMap = new Map<CredentialId, Credential>();
  readonly inputs: { id: SessionId; text: string }[] = [];
  readonly desktops: FarEnd[] = [];
  readonly terminals: { end: FarEnd; sizes: TerminalSize[]; closed: boolean }[] = [];
  readonly execs: { id: MachineId; request: ExecRequest; aborted: boolean }[] = [];
  /** What a command prints; awaited between events so that a test sees it stream. */
  execScript: (request: ExecRequest, signal: AbortSignal) => AsyncIterable<ExecEvent> = async function* () {
    yield { type: 'stdout', text: 'hello\n' };
    yield { type: 'exit', code: 0, signal: null, timedOut: false };
  };
  /** Set to make the next calls of machines fail. */
  failure: PolydevError | undefined;
  hostList: Host[] = [
    {
      id: 'local',
      driver: 'namespace',
      image: '0123456789abcdef',
      ok: true,
      problems: [],
      machines: 0,
      memoryMiB: { total: 8000, available: 6000 },
      diskMiB: { total: 80_000, available: 60_000 },
      promisedDiskMiB: { used: 10_240, allowed: 320_000 },
      pool: { wanted: 0, ready: 0, starting: 0, problem: null },
      evidence: { machines: 3, mib: 1, maxMachines: 200, maxMib: 512 },
      load: { one: 0.5, cpus: 2 },
      addresses: { used: 2, size: 61 },
      recovered: { adopted: 0, ended: 0 },
    },
  ];
  #seq = 0;
  #wake = new Set<() => void>();

  addSession(request: Partial<LoginRequest> = {}, state: SessionState = 'waiting_for_person'): Session {
    const id = newSessionId();
    const machine = this.addMachine({
      kind: 'browser',
      sessionId: id,
      userId: request.userId ?? UserId.parse('operator'),
    });
    const session: Session = {
      id,
      userId: request.userId ?? UserId.parse('operator'),
      provider: request.provider ?? 'codex',
      account: request.account ?? 'default',
      realm: request.realm ?? 'internet',
      state,
      createdAt: now(),
      expiresAt: new Date(Date.now() + (request.expiresInSeconds ?? 900) * 1000).toISOString(),
      endedAt: isFinal(state) ? now() : null,
      browserMachineId: machine.id,
      cliMachineId: null,
      credentialId: null,
      loginUrl: 'https://auth.example/authorize',
      liveViewPath: `/sessions/${id}/desktop`,
      verification: null,
      error: null,
      actions: [...sessionActions(state)],
      timeline: [],
    };
    this.sessions.set(id, session);
    this.addEvent(id, 'state', state);
    return this.setSession(id, {});
  }

  /** Appends to the timeline of a session and wakes who follows it. */
  addEvent(
    id: SessionId,
    kind: TimelineEvent['kind'],
    name: string,
    durationMs: number | null = null,
  ): TimelineEvent {
    this.#seq += 1;
    const event: TimelineEvent = {
      seq: this.#seq,
      at: now(),
      subject: 'session',
      id,
      kind,
      name,
      durationMs,
      detail: null,
    };
    const session = this.sessions.get(id);
    if (session !== undefined) this.sessions.set(id, { ...session, timeline: [...session.timeline, event] });
    for (const wake of this.#wake) wake();
    return event;
  }

  setSession(id: SessionId, change: Partial<Session>): Session {
    const session = this.sessions.get(id);
    if (session === undefined) throw new Error(`no session ${id}`);
    const changed = { ...session, ...change };
    this.sessions.set(id, changed);
    return changed;
  }

  /** Enters a state; a final one also removes the machine. */
  move(id: SessionId, state: SessionState): Session {
    const session = this.setSession(id, {
      state,
      actions: [...sessionActions(state)],
      endedAt: isFinal(state) ? now() : null,
    });
    if (isFinal(state) && session.browserMachineId !== null)
      this.moveMachine(session.browserMachineId, 'destroyed');
    this.addEvent(id, 'state', state);
    return this.setSession(id, {});
  }

  addMachine(change: Partial<Machine> = {}): Machine {
    const kind = change.kind ?? 'cli';
    const state = change.state ?? 'ready';
    const machine: Machine = {
      id: newMachineId(),
      kind,
      realm: 'internet',
      userId: UserId.parse('operator'),
      sessionId: null,
      state,
      driver: 'namespace',
      image: '0123456789abcdef',
      address: '10.77.0.2',
      createdAt: now(),
      endedAt: null,
      removeAt: null,
      pooled: false,
      stamps: [],
      error: null,
      health: null,
      actions: [...machineActions(kind, state)],
      ...change,
    };
    this.machineMap.set(machine.id, machine);
    return machine;
  }

  moveMachine(id: MachineId, state: MachineState): Machine {
    const machine = this.machineMap.get(id);
    if (machine === undefined) throw new PolydevError('not_found', 'no such machine');
    const gone = state === 'destroyed';
    const moved = {
      ...machine,
      state,
      endedAt: gone ? now() : null,
      actions: [...machineActions(machine.kind, state)],
    };
    this.machineMap.set(id, moved);
    return moved;
  }

  addCredential(change: Partial<Credential> = {}): Credential {
    const credential: Credential = {
      id: newCredentialId(),
      userId: UserId.parse('operator'),
      provider: 'codex',
      account: 'default',
      realm: 'internet',
      version: 1,
      facts: { accountId: 'acc', email: 'p@example.org', subscription: 'plus', accessExpiresAt: null },
      createdAt: now(),
      updatedAt: now(),
      holderMachineId: null,
      ...change,
    };
    this.credentialMap.set(credential.id, credential);
    return credential;
  }

  #mayFail(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  readonly logins: Logins = {
    start: async (request) => {
      this.#mayFail();
      return this.addSession(request, 'queued');
    },
    get: async (id) => this.sessions.get(id),
    list: async ({ userId }) =>
      [...this.sessions.values()].filter((s) => userId === undefined || s.userId === userId).reverse(),
    input: async (id, text) => {
      this.inputs.push({ id, text });
    },
    cancel: async (id) => this.move(id, 'cancelled'),
    events: (id, afterSeq, signal) => this.#events(id, afterSeq, signal),
  };

  async *#events(id: SessionId, afterSeq: number, signal: AbortSignal): AsyncGenerator<TimelineEvent> {
    let last = afterSeq;
    for (;;) {
      signal.throwIfAborted();
      const woken = Promise.withResolvers<void>();
      const wake = () => woken.resolve();
      this.#wake.add(wake);
      signal.addEventListener('abort', wake);
      try {
        const session = this.sessions.get(id);
        const fresh = (session?.timeline ?? []).filter((event) => event.seq > last);
        for (const event of fresh) {
          last = event.seq;
          yield event;
        }
        if (session === undefined || session.endedAt !== null) return;
        if (fresh.length === 0) await woken.promise;
      } finally {
        this.#wake.delete(wake);
        signal.removeEventListener('abort', wake);
      }
    }
  }

  /** What is wrong with machines, by id. */
  readonly diagnoses = new Map<MachineId, Diagnosis>();

  readonly machines: Machines = {
    list: async ({ userId }) =>
      [...this.machineMap.values()].filter((m) => userId === undefined || m.userId === userId).reverse(),
    get: async (id) => this.machineMap.get(id),
    console: async (id) => `console of ${id}\n`,
    evidence: async (): Promise<EvidenceFile[]> => [{ name: 'console.log', bytes: 10, modified: now() }],
    evidenceFile: async (_id, name) => {
      if (name !== 'console.log') throw new PolydevError('not_found', `no evidence named ${name}`);
      return Buffer.from('evidence\n');
    },
    diagnosis: async (id) => this.diagnoses.get(id) ?? null,
    start: async (id) => {
      this.#mayFail();
      return this.moveMachine(id, 'ready');
    },
    hibernate: async (id) => this.moveMachine(id, 'hibernated'),
    resume: async (id) => this.moveMachine(id, 'ready'),
    stop: async (id) => this.moveMachine(id, 'stopped'),
    destroy: async (id) => this.moveMachine(id, 'destroyed'),
    desktop: async () => {
      this.#mayFail();
      const pair = duplexPair();
      this.desktops.push(pair);
      return pair.near;
    },
    terminal: async (id, size): Promise<Terminal> => {
      this.#mayFail();
      if (this.machineMap.get(id)?.state === 'stopped') this.moveMachine(id, 'ready');
      const record = { end: duplexPair(), sizes: [size], closed: false };
      this.terminals.push(record);
      return {
        stream: record.end.near,
        resize: async (next) => {
          record.sizes.push(next);
        },
        close: async () => {
          record.closed = true;
        },
      };
    },
    exec: (id, request, signal) => this.#exec(id, request, signal),
  };

  async *#exec(id: MachineId, request: ExecRequest, signal: AbortSignal): AsyncGenerator<ExecEvent> {
    this.#mayFail();
    const record = { id, request, aborted: false };
    this.execs.push(record);
    signal.addEventListener('abort', () => {
      record.aborted = true;
    });
    for await (const event of this.execScript(request, signal)) {
      yield event;
      await delay(1);
    }
  }

  readonly credentials: Credentials = {
    list: async ({ userId }) =>
      [...this.credentialMap.values()].filter((c) => userId === undefined || c.userId === userId),
    get: async (id) => this.credentialMap.get(id),
    remove: async (id) => {
      this.credentialMap.delete(id);
    },
  };

  /** What the doctor says of every host. */
  doctorReport: DoctorReport = { at: now(), ok: true, checks: [] };

  readonly hosts: Hosts = {
    list: async () => this.hostList,
    doctor: async (id) => {
      this.#mayFail();
      if (!this.hostList.some((host) => host.id === id)) throw new PolydevError('not_found', `no host ${id}`);
      return this.doctorReport;
    },
  };

  readonly meters = createMeters();

  settings: Settings = SETTINGS_DEFAULTS;

  readonly operation: Operation = {
    settings: async () => this.settings,
    changeSettings: async (patch) => {
      this.settings = Settings.parse({ ...this.settings, ...patch });
      return this.settings;
    },
    cleanUp: async () => ({
      settings: this.settings,
      kept: [...this.machineMap.values()].filter(({ removeAt }) => removeAt !== null),
      orphans: [],
    }),
    statistics: async (from, stepBuckets): Promise<Statistics> => {
      const upTo = new Date();
      const over = [...this.sessions.values()].filter(
        ({ endedAt }) => endedAt !== null && new Date(endedAt) >= from && new Date(endedAt) < upTo,
      );
      const steps = over.flatMap(({ timeline }) =>
        timeline.flatMap(({ kind, name, durationMs }) =>
          kind === 'step' && durationMs !== null ? [{ step: name, seconds: durationMs / 1000 }] : [],
        ),
      );
      return {
        active: [...this.sessions.values()]
          .filter(({ endedAt }) => endedAt === null)
          .map(({ state }) => ({ state, count: 1 })),
        machines: [...this.machineMap.values()]
          .filter(({ endedAt }) => endedAt === null)
          .map(({ kind, state }) => ({ kind, state, count: 1 })),
        degraded: [...this.machineMap.values()].flatMap(({ kind, health }) =>
          health?.diagnosis == null ? [] : [{ kind, diagnosis: health.diagnosis.name, count: 1 }],
        ),
        ended: over.map(({ provider, realm, state, error }) => ({
          provider,
          realm,
          state,
          code: error?.code ?? 'none',
          count: 1,
        })),
        steps: steps.map(({ step, seconds }) => ({
          step,
          count: 1,
          seconds,
          within: stepBuckets.map((bound) => (seconds <= bound ? 1 : 0)),
        })),
        upTo,
      };
    },
  };
}
