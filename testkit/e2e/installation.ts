/**
 * A whole installation of Polydev for a test: the genuine `./polydev up` with a data directory of its own, spoken to
 * through `./polydev` and its public API only.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { z } from 'zod';
import { instanceName } from '../../cli/settings.ts';
import { Machine, Session } from '../../protocol/api.ts';

const CHECKOUT = path.resolve(import.meta.dirname, '../..');

const Ready = z.object({
  ready: z.literal(true),
  url: z.string(),
  signInUrl: z.string(),
  apiKeyPath: z.string(),
  instance: z.string(),
});

export interface Installation extends AsyncDisposable {
  readonly url: string;
  readonly signInUrl: string;
  readonly dataDir: string;
  readonly instance: string;
  /** Runs a command to its end; never throws for an exit code. */
  polydev(
    args: readonly string[],
    seconds?: number,
  ): Promise<{ exitCode: number; stdout: string; stderr: string }>;
  api<T>(method: string, route: string, schema: z.ZodType<T>, body?: unknown): Promise<T>;
  /** Polls the public API, at most `seconds`, until the session fits; returns what it saw last either way. */
  sessionUntil(id: string, fits: (session: Session) => boolean, seconds: number): Promise<Session>;
  machines(): Promise<Machine[]>;
  /** The pid of a child of `up`, found by what it runs. */
  pidOf(program: 'controller/main.ts' | 'host/main.ts'): Promise<number>;
  /** What `up` said so far. */
  readonly log: readonly string[];
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
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

/** Starts an installation; with `dataDir` given, on top of what is there. */
export async function install(options: { dataDir?: string; driver?: 'qemu' } = {}): Promise<Installation> {
  const dataDir = options.dataDir ?? (await mkdtemp(path.join(os.tmpdir(), 'polydev-e2e-')));
  const port = await freePort();
  const driver = options.driver === undefined ? [] : ['--driver', options.driver];
  const child: ChildProcess = spawn(
    path.join(CHECKOUT, 'polydev'),
    ['--data', dataDir, 'up', '--json', '--port', String(port), '--no-install', ...driver],
    { stdio: ['ignore', 'pipe', 'pipe'], cwd: CHECKOUT },
  );
  const log: string[] = [];
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
  createInterface({ input: child.stderr }).on('line', (line) => log.push(line));
  const ready = await Promise.race([
    new Promise<z.infer<typeof Ready>>((resolve) => {
      if (child.stdout !== null) {
        createInterface({ input: child.stdout }).once('line', (line) =>
          resolve(Ready.parse(JSON.parse(line))),
        );
      }
    }),
    exited.then((code) => Promise.reject(new Error(`up ended with ${code}:\n${log.join('\n')}`))),
    sleep(120_000).then(() => Promise.reject(new Error(`up is not ready after 120 s:\n${log.join('\n')}`))),
  ]);
  const key = (await readFile(ready.apiKeyPath, 'utf8')).trim();

  const api = async <T>(method: string, route: string, schema: z.ZodType<T>, body?: unknown): Promise<T> => {
    const response = await fetch(new URL(route, ready.url), {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${route}: ${response.status} ${text}`);
    return schema.parse(text === '' ? undefined : JSON.parse(text));
  };

  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    const forced = setTimeout(() => child.kill('SIGKILL'), 90_000);
    await exited;
    clearTimeout(forced);
  };

  return {
    url: ready.url,
    signInUrl: ready.signInUrl,
    instance: ready.instance,
    dataDir,
    log,
    api,
    stop,
    async polydev(args, seconds = 240) {
      const result = await execa(path.join(CHECKOUT, 'polydev'), ['--data', dataDir, ...args], {
        reject: false,
        stdin: 'ignore',
        timeout: seconds * 1000,
        cwd: CHECKOUT,
      });
      return { exitCode: result.exitCode ?? -1, stdout: result.stdout, stderr: result.stderr };
    },
    async sessionUntil(id, fits, seconds) {
      const deadline = Date.now() + seconds * 1000;
      for (;;) {
        const session = await api('GET', `/api/auth/session/${id}`, Session).catch((error: unknown) => {
          // The controller may be starting again; the deadline bounds the wait.
          if (Date.now() > deadline) throw error;
          return undefined;
        });
        if (session !== undefined && (fits(session) || Date.now() > deadline)) return session;
        await sleep(100);
      }
    },
    async machines() {
      return (await api('GET', '/api/machines', z.object({ machines: z.array(Machine) }))).machines;
    },
    async pidOf(program) {
      const found = await execa('pgrep', ['-f', '--', `${program} .*${instanceName(dataDir)}`], {
        reject: false,
      });
      const pids = found.stdout
        .split('\n')
        .filter((p) => p !== '')
        .map(Number);
      for (const pid of pids) {
        const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
        if (argv[0]?.endsWith('/node') && argv.some((a) => a.endsWith(program))) return pid;
      }
      throw new Error(`no process runs ${program}`);
    },
    async [Symbol.asyncDispose]() {
      await stop();
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}
