/** Runs one external command of a build: lines out as they come, a deadline, and nothing left behind. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { PolydevError } from '../../protocol/errors.ts';

export interface RunOptions {
  readonly signal: AbortSignal;
  /** Milliseconds after which the command counts as hung. */
  readonly deadline: number;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Called for every line of stdout and stderr. */
  readonly onLine?: (line: string) => void;
  /** What failed, for the error message. */
  readonly what: string;
  /** Put before the command: it runs inside of what this makes. */
  readonly within?: readonly string[];
  /** SIGKILL on abort and deadline, without SIGTERM before: for what cannot leave anything behind. */
  readonly atOnce?: boolean;
}

/** Milliseconds between SIGTERM and SIGKILL. */
const GRACE = 5_000;

/**
 * Runs `argv`, resolves with all stdout lines. The command gets its own process group, which ends with it: on abort
 * and on the deadline the whole group is terminated, and should this process die, the kernel kills the command.
 * Throws `image_build_failed` with the last lines of its output; an abort throws the signal's reason.
 */
export async function run(argv: readonly [string, ...string[]], options: RunOptions): Promise<string[]> {
  const { signal, deadline, onLine, what, within = [], atOnce = false } = options;
  signal.throwIfAborted();
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...within, ...argv], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: options.env ?? process.env,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const stdout: string[] = [];
  const tail: string[] = [];
  const take = (line: string): void => {
    tail.push(line);
    if (tail.length > 40) tail.shift();
    onLine?.(line);
  };
  createInterface({ input: child.stdout }).on('line', (line) => {
    stdout.push(line);
    take(line);
  });
  createInterface({ input: child.stderr }).on('line', take);

  const killGroup = (name: NodeJS.Signals): void => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, name);
    } catch {
      // The group is gone already.
    }
  };
  let ended = false;
  let kill: NodeJS.Timeout | undefined;
  let timedOut = false;
  const stop = (): void => {
    killGroup(atOnce ? 'SIGKILL' : 'SIGTERM');
    kill ??= setTimeout(() => killGroup('SIGKILL'), GRACE);
  };
  const timer = setTimeout(() => {
    timedOut = true;
    stop();
  }, deadline);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const code = await new Promise<number | string>((resolve, reject) => {
      child.once('error', (error) =>
        reject(new PolydevError('image_build_failed', `${what}: ${error.message}`, { cause: error })),
      );
      child.once('close', (exit, by) => resolve(exit ?? by ?? 'unknown'));
    });
    ended = true;
    signal.throwIfAborted();
    if (timedOut) {
      throw new PolydevError('image_build_failed', `${what}: no end after ${deadline / 1000} s`, {
        lines: tail,
      });
    }
    if (code !== 0) {
      throw new PolydevError('image_build_failed', `${what}: ${argv[0]} ended with ${code}`, { lines: tail });
    }
    return stdout;
  } finally {
    clearTimeout(timer);
    clearTimeout(kill);
    signal.removeEventListener('abort', stop);
    if (!ended) killGroup('SIGKILL');
  }
}
