/** Runs programs: argv arrays only, always with a deadline, their last lines kept for the error. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';
import { inNetworkNamespace } from './syscalls.ts';

/** What a child of the host service sees: nothing of our own environment. */
export const PLAIN_ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LANG: 'C.UTF-8',
};

export interface RunOptions {
  /** Text for standard input; none: closed. */
  input?: string;
  /** Path of the network namespace to run in. */
  netns?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Milliseconds; default 10 000. */
  timeoutMs?: number;
  /** The catalogue code when it fails; default `internal`. */
  failure?: ErrorCode;
  /** Further descriptors of the child from 3 on. */
  inherit?: readonly number[];
  /** Descriptor for standard output and error instead of collecting them. */
  output?: number;
}

/** What to put before a program and its arguments so that it runs as this host user, and never as more than that. */
export const unprivileged = (uid: number, group?: number): string[] => [
  ...['setpriv', '--reuid', String(uid), '--regid', String(uid), '--no-new-privs'],
  ...(group === undefined ? ['--clear-groups'] : ['--groups', String(group)]),
  ...['--inh-caps', '-all', '--ambient-caps', '-all', '--bounding-set', '-all', '--'],
];

const MAX_OUTPUT = 1024 * 1024;
/** What the kernel gets to end a program that has no say in it. */
const KILL_MS = 5000;

/** spawn(), inside a network namespace when one is named. */
export function spawnIn(
  netns: string | undefined,
  argv: readonly string[],
  options: { stdio: StdioOptions; detached?: boolean; cwd?: string; env?: Record<string, string> },
): ChildProcess {
  const [file, ...args] = argv;
  if (file === undefined) throw new Error('empty argv');
  const start = (): ChildProcess => spawn(file, args, { env: PLAIN_ENVIRONMENT, ...options });
  return netns === undefined ? start() : inNetworkNamespace(netns, start);
}

/** The line that says most: the first that speaks of an error (nft points at the place in those after), or the last. */
function telling(lines: readonly string[]): string {
  const line = lines.find((text) => /error/i.test(text)) ?? lines.at(-1);
  return line === undefined ? '' : `: ${line}`;
}

/** Runs to the end and returns standard output. Throws PolydevError naming the command, with its last lines. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const failure = options.failure ?? 'internal';
  const title = argv.slice(0, 6).join(' ');
  options.signal?.throwIfAborted();
  const out = options.output ?? 'pipe';
  const child = spawnIn(options.netns, argv, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', out, out, ...(options.inherit ?? [])],
  });
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    if (stdout.length < MAX_OUTPUT) stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    if (stderr.length < MAX_OUTPUT) stderr += text;
  });
  // A program that ends without reading its input must not end us with EPIPE; its exit code tells the story.
  child.stdin?.on('error', () => undefined).end(options.input);

  const end = Promise.withResolvers<string | undefined>();
  let stopped: string | undefined;
  let kill: NodeJS.Timeout | undefined;
  const stop = (why: string) => () => {
    if (stopped !== undefined) return;
    stopped = why;
    child.kill('SIGKILL');
    // What it has started may hold them open for longer.
    child.stdout?.destroy();
    child.stderr?.destroy();
    kill = setTimeout(() => end.resolve(`${why}, nor after SIGKILL`), KILL_MS);
  };
  const timeoutMs = options.timeoutMs ?? 10_000;
  const timer = setTimeout(stop(`no end after ${timeoutMs} ms`), timeoutMs);
  const aborted = stop('aborted');
  options.signal?.addEventListener('abort', aborted, { once: true });
  try {
    child.once('error', (error) => end.resolve(error.message));
    child.once('close', (code, signal) =>
      end.resolve(
        code === 0 ? undefined : (stopped ?? (signal === null ? `exit code ${code}` : `ended by ${signal}`)),
      ),
    );
    const ended = await end.promise;
    if (ended !== undefined) {
      const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '');
      throw new PolydevError(failure, `${title}: ${ended}${telling(lines)}`, {
        lines,
        ...(stopped === 'aborted' ? { cause: options.signal?.reason } : {}),
      });
    }
    return stdout;
  } finally {
    clearTimeout(timer);
    clearTimeout(kill);
    options.signal?.removeEventListener('abort', aborted);
  }
}
