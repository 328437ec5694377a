/** A bench of login sessions: what is asked of one, and what the person and the CLI then do. */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { expect } from 'vitest';
import type { Session } from '../../../protocol/api.ts';
import { type MachineId, type SessionId, UserId } from '../../../protocol/ids.ts';
import type { SessionState } from '../../../protocol/lifecycles.ts';
import type { FakeHost } from '../../../testkit/fakes/host.ts';
import type { TestPostgres } from '../../../testkit/postgres.ts';
import type { Services } from '../../services.ts';
import { WorkflowBench } from './bench.ts';

export const USER = UserId.parse('ada');

export class LoginBench implements AsyncDisposable {
  readonly bench: WorkflowBench;
  /** Stands in every file of the credential. */
  readonly canary: string;
  readonly #logged: () => string;

  private constructor(bench: WorkflowBench, canary: string, logged: () => string) {
    this.bench = bench;
    this.canary = canary;
    this.#logged = logged;
  }

  static async start(postgres: TestPostgres): Promise<LoginBench> {
    const canary = `canary${randomUUID().replaceAll('-', '')}`;
    let logged = '';
    const log = pino({ level: 'trace' }, { write: (line: string) => (logged += line) });
    return new LoginBench(await WorkflowBench.start(postgres, { canary, log }), canary, () => logged);
  }

  get host(): FakeHost {
    return this.bench.host;
  }

  get services(): Services {
    return this.bench.services;
  }

  /** Everything that was logged so far. */
  get logged(): string {
    return this.#logged();
  }

  start(options: { realm?: 'test' | 'internet'; expiresInSeconds?: number } = {}): Promise<Session> {
    const { realm = 'test', expiresInSeconds = 60 } = options;
    return this.services.logins.start({
      ...{ userId: USER, provider: 'codex', account: 'default' },
      ...{ realm, expiresInSeconds },
    });
  }

  async read(id: SessionId): Promise<Session> {
    const session = await this.services.logins.get(id);
    if (session === undefined) throw new Error('the session is gone');
    return session;
  }

  /** Waits until the session has entered a state. */
  async until(id: SessionId, state: SessionState): Promise<Session> {
    const names: string[] = [];
    for await (const event of this.services.logins.events(id, 0, AbortSignal.timeout(20_000))) {
      if (event.subject !== 'session' || event.kind !== 'state') continue;
      names.push(event.name);
      if (event.name === state) return this.read(id);
    }
    throw new Error(`never ${state}, but ${names.join(' ')}: ${JSON.stringify((await this.read(id)).error)}`);
  }

  /** The person signs in; the session when it has ended. */
  async signIn(id: SessionId): Promise<Session> {
    this.host.agent(browserOf(await this.until(id, 'waiting_for_person'))).signIn();
    return this.bench.settled(id);
  }

  /** A whole login that goes well. */
  async connect(): Promise<{ session: Session; cliMachineId: MachineId }> {
    const session = await this.signIn((await this.start()).id);
    if (session.cliMachineId === null) throw new Error('no CLI machine');
    return { session, cliMachineId: session.cliMachineId };
  }

  async expectBrowserGone({ browserMachineId }: Session): Promise<void> {
    expect(this.host.ids).not.toContain(browserMachineId);
    if (browserMachineId === null) return;
    expect((await this.services.machines.get(browserMachineId))?.state).toBe('destroyed');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.bench[Symbol.asyncDispose]();
  }
}

export function browserOf(session: Session): MachineId {
  if (session.browserMachineId === null) throw new Error('no browser machine');
  return session.browserMachineId;
}
