/** The workflows on a fake host and a real database of their own, in this process. */
import { randomBytes, randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Logger, pino } from 'pino';
import type { Session } from '../../../protocol/api.ts';
import type { SessionId } from '../../../protocol/ids.ts';
import { codexFiles } from '../../../testkit/fakes/codex.ts';
import { FakeHost } from '../../../testkit/fakes/host.ts';
import type { TestPostgres } from '../../../testkit/postgres.ts';
import { createHostClient } from '../../hosts/host-client.ts';
import type { Services } from '../../services.ts';
import { type OpenDatabase, openDatabase } from '../../store/database.ts';
import { masterKeyFromValue } from '../../vault/master-key.ts';
import { createVault, type Vault } from '../../vault/vault.ts';
import type { WorkflowSettings } from '../context.ts';
import { createServices } from '../services.ts';

const WAIT_MS = 30_000;

export interface BenchOptions {
  /** Stands in every file of the credential that the fake CLI writes. */
  canary?: string;
  log?: Logger;
  settings?: Partial<WorkflowSettings>;
}

export class WorkflowBench implements AsyncDisposable {
  readonly host: FakeHost;
  readonly open: OpenDatabase;
  readonly url: string;
  readonly #options: BenchOptions;
  readonly #masterKey = randomBytes(32).toString('hex');
  #running: { services: Services & AsyncDisposable; vault: Vault } | undefined;

  private constructor(host: FakeHost, url: string, open: OpenDatabase, options: BenchOptions) {
    this.host = host;
    this.url = url;
    this.open = open;
    this.#options = options;
  }

  static async start(postgres: TestPostgres, options: BenchOptions = {}): Promise<WorkflowBench> {
    const socket = path.join(postgres.directory, `host-${randomUUID().slice(0, 8)}.sock`);
    const host = await FakeHost.start(socket, {
      files: codexFiles(options.canary ?? 'first'),
      verify: { output: 'Logged in using ChatGPT\n', code: 0 },
    });
    const url = await postgres.createDatabase();
    const bench = new WorkflowBench(host, url, await openDatabase({ url }), options);
    await bench.serve();
    return bench;
  }

  /** Starts the services; again after `leave`, as a new controller on the same database. */
  async serve(): Promise<void> {
    const vault = await createVault(this.open.db, masterKeyFromValue(this.#masterKey));
    const services = await createServices({
      db: this.open.db,
      databaseUrl: this.url,
      vault,
      hostClient: createHostClient(this.host.socketPath),
      log: this.#options.log ?? pino({ level: 'silent' }),
      settings: { reconcileEveryMs: 100, bootDeadlineMs: 6_000, ...this.#options.settings },
    });
    this.#running = { services, vault };
  }

  /** Ends the services in order. */
  async leave(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.services[Symbol.asyncDispose]();
  }

  get services(): Services {
    return this.#serving.services;
  }

  get vault(): Vault {
    return this.#serving.vault;
  }

  get #serving(): { services: Services; vault: Vault } {
    if (this.#running === undefined) throw new Error('no services run');
    return this.#running;
  }

  /** The session when it has ended. */
  async settled(id: SessionId): Promise<Session> {
    for await (const _ of this.services.logins.events(id, 0, AbortSignal.timeout(WAIT_MS)));
    const session = await this.services.logins.get(id);
    if (session === undefined) throw new Error('no session');
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave();
    await this.open[Symbol.asyncDispose]();
    await this.host[Symbol.asyncDispose]();
  }
}

/** Waits until `test` says so, 30 s at most. */
export async function waitFor(test: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + WAIT_MS;
  while (!(await test())) {
    if (Date.now() > deadline) throw new Error('what was waited for did not come');
    await sleep(25);
  }
}
