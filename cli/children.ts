/** Long-running child processes of `up`: started, watched, started again when they die, and stopped in order. */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFile, open, rename, stat, truncate } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { PolydevError } from '../protocol/errors.ts';

export interface ChildSpec<Ready> {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly logFile: string;
  /** The one JSON line on stdout that says that it serves. */
  readonly ready: z.ZodType<Ready>;
  readonly readyDeadlineMs: number;
  /** Given SIGTERM, how long until SIGKILL. */
  readonly stopDeadlineMs: number;
  /** Called for every start after the first. */
  onRestart(ready: Ready): void;
  onDeath(reason: string): void;
}

export interface Child<Ready> extends AsyncDisposable {
  readonly ready: Ready;
  readonly pid: number;
}

const LOG_LIMIT = 32 * 1024 * 1024;

/**
 * Starts a child and keeps it running. Its stderr and everything on stdout after the ready line go to `logFile`, which
 * is kept below 64 MiB (one older copy). Throws `child_died` with the last log lines when it does not become ready.
 */
export async function superviseChild<Ready>(spec: ChildSpec<Ready>): Promise<Child<Ready>> {
  let stopping = false;
  let current = await startOnce(spec);
  let latest = current.ready;

  const watch = async () => {
    let delay = 100;
    while (!stopping) {
      const startedAt = Date.now();
      const reason = await current.exited;
      if (stopping) return;
      spec.onDeath(reason);
      if (Date.now() - startedAt > 30_000) delay = 100;
      for (;;) {
        await sleep(delay);
        delay = Math.min(delay * 2, 5_000);
        if (stopping) return;
        try {
          current = await startOnce(spec);
          // A stop that came while it was starting must still end it.
          if (stopping) {
            current.process.kill('SIGTERM');
            return;
          }
          latest = current.ready;
          spec.onRestart(current.ready);
          break;
        } catch (error) {
          spec.onDeath(error instanceof Error ? error.message : String(error));
        }
      }
    }
  };
  const watching = watch();
  // A disk that is full is no reason to end what runs: it is tried again.
  const trimming = setInterval(() => void trimLog(spec.logFile).catch(() => undefined), 30_000);
  trimming.unref();

  return {
    get ready() {
      return latest;
    },
    get pid() {
      return current.process.pid ?? -1;
    },
    async [Symbol.asyncDispose]() {
      stopping = true;
      clearInterval(trimming);
      const child = current;
      if (child.process.exitCode === null && child.process.signalCode === null) child.process.kill('SIGTERM');
      const forced = setTimeout(() => child.process.kill('SIGKILL'), spec.stopDeadlineMs);
      await child.exited;
      clearTimeout(forced);
      await watching;
    },
  };
}

interface Running<Ready> {
  readonly process: ChildProcess;
  readonly ready: Ready;
  readonly exited: Promise<string>;
}

async function startOnce<Ready>(spec: ChildSpec<Ready>): Promise<Running<Ready>> {
  const log = await open(spec.logFile, 'a', 0o640);
  const logStart = (await log.stat()).size;
  const [program, ...args] = spec.argv;
  const child = spawn(program, args, {
    cwd: spec.cwd,
    env: spec.env,
    stdio: ['ignore', 'pipe', log.fd],
    // A group of its own: Ctrl-C on the terminal reaches `up` alone, which stops its children in order.
    detached: true,
  });
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`${spec.name} could not start: ${error.message}`));
    child.once('exit', (code, signal) =>
      resolve(`${spec.name} ended with ${signal ?? `exit code ${code}`}; its log is ${spec.logFile}`),
    );
  });
  await log.close();

  const stdout = child.stdout;
  if (stdout === null) throw new PolydevError('internal', `${spec.name} has no stdout pipe`);
  const lines = createInterface({ input: stdout });
  const ready = new Promise<Ready>((resolve) => {
    lines.on('line', (line) => {
      const parsed = spec.ready.safeParse(parseJson(line));
      if (parsed.success) resolve(parsed.data);
    });
  });
  const deadline = new AbortController();
  const outcome = await Promise.race([
    ready.then((value) => ({ value })),
    exited.then((reason) => ({ reason })),
    sleep(spec.readyDeadlineMs, undefined, { signal: deadline.signal }).then(
      () => ({
        reason: `${spec.name} was not ready after ${spec.readyDeadlineMs / 1000} s; its log is ${spec.logFile}`,
      }),
      () => ({ reason: 'cancelled' }),
    ),
  ]);
  deadline.abort();
  if ('value' in outcome) return { process: child, ready: outcome.value, exited };
  child.kill('SIGKILL');
  throw new PolydevError('child_died', outcome.reason, { lines: await tail(spec.logFile, logStart) });
}

/** Undefined for a line that is no JSON: a child may print anything. */
function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

async function tail(file: string, from: number): Promise<string[]> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const start = Math.max(from, size - 8192);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.toString('utf8', 0, bytesRead).trimEnd().split('\n').slice(-15);
  } finally {
    await handle.close();
  }
}

/** Children append (O_APPEND), so a log can be cut under them without their help. */
async function trimLog(file: string): Promise<void> {
  const facts = await stat(file).catch(() => undefined);
  if (facts === undefined || facts.size < LOG_LIMIT) return;
  await copyFile(file, `${file}.new`);
  await rename(`${file}.new`, path.join(path.dirname(file), `${path.basename(file)}.1`));
  await truncate(file, 0);
}
