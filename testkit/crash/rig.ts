/**
 * A whole installation that is killed piece by piece: the genuine controller, host service and Postgres as processes of their
 * own, machines of the namespace driver. The harness stands where `./polydev up` does and starts again what died.
 */
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { z } from 'zod';
import { type SupervisedDatabase, superviseDatabase } from '../../cli/database.ts';
import type { HostConfig } from '../../host/config.ts';
import { CHECKOUT, newInstance } from '../../host/testing/fixture.ts';
import { copyImages } from '../faults/images.ts';
import { LIGHT_GUEST } from './guest.ts';
import { Hooks } from './hooks.ts';
import { Restartable } from './process.ts';

export const PROCESSES = ['controller', 'host', 'postgres', 'machine'] as const;
export type ProcessName = (typeof PROCESSES)[number];

const UP_DEADLINE_MS = 60_000;
const NOBODY = 65_534;

const MachineProcess = z.object({ pid: z.number(), startTicks: z.number() });

export class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly hostConfig: HostConfig;
  readonly hooks: Hooks;
  readonly controller: Restartable;
  readonly host: Restartable;
  readonly databaseUrl: string;
  readonly #url: string;
  readonly #undo: AsyncDisposableStack;
  #key = '';

  private constructor(parts: {
    directory: string;
    hostConfig: HostConfig;
    hooks: Hooks;
    controller: Restartable;
    host: Restartable;
    database: SupervisedDatabase;
    url: string;
    undo: AsyncDisposableStack;
  }) {
    this.directory = parts.directory;
    this.hostConfig = parts.hostConfig;
    this.hooks = parts.hooks;
    this.controller = parts.controller;
    this.host = parts.host;
    this.databaseUrl = parts.database.url;
    this.#url = parts.url;
    this.#undo = parts.undo;
  }

  static async start(): Promise<Rig> {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp(path.join(tmpdir(), 'polydev-crash-'));
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    await chmod(directory, 0o755);
    const { config: usual, ...folders } = newInstance();
    undo.defer(() => folders[Symbol.dispose]());
    // Whoever builds an image meanwhile does not change this one.
    const hostConfig = { ...usual, imageCacheDir: (await copyImages(usual)).folder };
    const within = (name: string) => path.join(directory, name);
    const hooks = undo.use(await Hooks.listen(within('hooks.sock')));
    const database = undo.use(
      await superviseDatabase(
        {
          dataDir: within('postgres'),
          socketDir: within('pg'),
          logFile: within('postgres.log'),
          durable: false,
          runAs: { uid: NOBODY, gid: NOBODY },
          signal: AbortSignal.timeout(24 * 3_600_000),
        },
        () => undefined,
      ),
    );

    const hostFile = within('host.json');
    await writeFile(hostFile, JSON.stringify({ ...hostConfig, driver: 'namespace', logLevel: 'info' }));
    const host = new Restartable(
      [path.join(CHECKOUT, 'testkit/crash/host.ts'), hostFile, JSON.stringify(LIGHT_GUEST)],
      within('host.log'),
    );
    undo.defer(() => host.end('SIGTERM'));
    await host.start();

    const port = await freePort();
    await mkdir(within('controller'));
    const controllerFile = within('controller.json');
    await writeFile(
      controllerFile,
      JSON.stringify({
        port,
        bind: '127.0.0.1',
        databaseUrl: database.url,
        hostSocket: hostConfig.socketPath,
        masterKeyFile: within('master-key'),
        dataDir: within('controller'),
        webDist: within('controller'),
        instance: hostConfig.instance,
        allowTestRealm: true,
        allowRoot: true,
        logLevel: 'info',
        apiKeyFile: within('api-key'),
      }),
    );
    const controller = new Restartable(
      [path.join(CHECKOUT, 'testkit/crash/controller.ts'), controllerFile, within('hooks.sock')],
      within('controller.log'),
    );
    undo.defer(() => controller.end('SIGTERM'));
    await controller.start();
    const url = `http://127.0.0.1:${port}`;
    const rig = new Rig({
      directory,
      hostConfig,
      hooks,
      controller,
      host,
      database,
      url,
      undo: undo.move(),
    });
    rig.#key = (await readFile(within('api-key'), 'utf8')).trim();
    return rig;
  }

  async api<T>(method: string, route: string, schema: z.ZodType<T>, body?: unknown): Promise<T> {
    const response = await fetch(new URL(route, this.#url), {
      method,
      headers: {
        authorization: `Bearer ${this.#key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${route}: ${response.status} ${text}`);
    return schema.parse(text === '' ? undefined : JSON.parse(text));
  }

  /** Rows of a query, over a connection of its own: the server may have been killed since the last. */
  async rows(text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: this.databaseUrl, connectionTimeoutMillis: 10_000 });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query<Record<string, unknown>>(text, [...values])).rows;
    } finally {
      await client.end();
    }
  }

  /** Pids of the first processes of the machines that run, as the host sees them. */
  async machinePids(): Promise<number[]> {
    const folder = path.join(this.hostConfig.dataDir, 'machines');
    const pids: number[] = [];
    for (const name of await readdir(folder).catch(() => [])) {
      const text = await readFile(path.join(folder, name, 'driver.json'), 'utf8').catch(() => undefined);
      if (text === undefined) continue;
      const { pid, startTicks } = MachineProcess.parse(JSON.parse(text));
      if ((await ticksOf(pid)) === startTicks) pids.push(pid);
    }
    return pids;
  }

  /**
   * SIGKILL to a process (to every machine that runs, for `machine`). Resolves when it is gone.
   * @returns false when there was no such process
   */
  async kill(what: ProcessName): Promise<boolean> {
    switch (what) {
      case 'controller':
      case 'host': {
        const child = this[what];
        if (!child.running) return false;
        await child.end('SIGKILL');
        return true;
      }
      case 'postgres': {
        const pid = await this.#postmaster();
        if (pid === undefined) return false;
        process.kill(pid, 'SIGKILL');
        await until(async () => (await this.#postmaster()) !== pid, 'Postgres gone');
        return true;
      }
      case 'machine': {
        const pids = await this.machinePids();
        for (const pid of pids) process.kill(pid, 'SIGKILL');
        return pids.length > 0;
      }
    }
  }

  /** SIGKILL to one of the machines that run, chosen by a number from 0 to 1. */
  async killOneMachine(which: number): Promise<boolean> {
    const pids = await this.machinePids();
    const pid = pids[Math.floor(which * pids.length)];
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
    return pid !== undefined;
  }

  async #postmaster(): Promise<number | undefined> {
    const text = await readFile(path.join(this.directory, 'postgres/postmaster.pid'), 'utf8').catch(() => '');
    const pid = Number.parseInt(text, 10);
    return (await ticksOf(pid)) === undefined ? undefined : pid;
  }

  /** Starts again what does not run, as `./polydev up` does, and waits until everything answers. */
  async bringUp(): Promise<void> {
    const limit = Date.now() + UP_DEADLINE_MS;
    await until(() => this.rows('SELECT 1').then(Boolean, () => false), 'Postgres answers');
    for (const child of [this.host, this.controller]) {
      while (!child.running) {
        // A controller may find the database in recovery; a supervisor tries again too.
        await child.start().catch((error: unknown) => {
          if (Date.now() > limit) throw error;
        });
      }
    }
    await until(async () => {
      if (!this.controller.running) await this.controller.start().catch(() => undefined);
      return fetch(`${this.#url}/ready`, { signal: AbortSignal.timeout(5_000) }).then(
        (response) => response.ok,
        () => false,
      );
    }, 'the controller is ready');
  }

  async logs(): Promise<string> {
    const texts = await Promise.all(
      ['controller.log', 'host.log', 'postgres.log'].map(async (name) => {
        const text = await readFile(path.join(this.directory, name), 'utf8').catch(() => '');
        return `== ${name}\n${text.split('\n').slice(-60).join('\n')}`;
      }),
    );
    return texts.join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

async function ticksOf(pid: number): Promise<number | undefined> {
  if (!Number.isInteger(pid) || pid <= 1) return undefined;
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A zombie is gone.
  return fields === undefined || fields[0] === 'Z' ? undefined : Number(fields[19]);
}

/** @throws Error naming what was waited for, after a minute */
export async function until(test: () => Promise<boolean>, what: string, ms = UP_DEADLINE_MS): Promise<void> {
  const limit = Date.now() + ms;
  while (!(await test())) {
    if (Date.now() > limit) throw new Error(`not within ${ms / 1000} s: ${what}`);
    await sleep(50);
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address !== null
          ? resolve(address.port)
          : reject(new Error('no port')),
      );
    });
  });
}
