import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { goFirst } from './priority.ts';

/** Times the slowdown of the machine's driver. */
const PROGRAM_TIMEOUT_MS = 10_000;

/** A program that runs as the agent itself: reads all its input, does what it says, and ends. */
export class Program {
  readonly #argv: readonly [string, ...string[]];
  #waiting: ReturnType<typeof start> | undefined;

  constructor(...argv: readonly [string, ...string[]]) {
    this.#argv = argv;
  }

  /** Starts it before there is input: where processors are emulated that takes longer than all it does, and a copy of this machine finds it waiting. */
  prepare(): void {
    if (this.#waiting !== undefined) return;
    this.#waiting = start(this.#argv);
    goFirst(this.#waiting.child.pid);
  }

  /** Gives it its input; why it failed, or undefined. `slowdown`: of the machine's driver. */
  async run(input: Buffer | string, slowdown = 1): Promise<string | undefined> {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    const { child, said, ended } = waiting !== undefined && runs(waiting.child) ? waiting : start(this.#argv);
    const late = setTimeout(() => child.kill('SIGKILL'), PROGRAM_TIMEOUT_MS * slowdown);
    child.stdin.end(input);
    try {
      const [code, signal] = await ended;
      return code === 0 ? undefined : said().trim() || `${this.#argv[0]} ended with ${code ?? signal}`;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      clearTimeout(late);
    }
  }
}

const runs = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode === null && signalCode === null;

function start([file, ...args]: readonly [string, ...string[]]) {
  const child = spawn(file, args, { stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-500);
  });
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  // Whoever gives it input is told.
  ended.catch(() => undefined);
  return { child, ended, said: () => said };
}
