/** A child that can be killed and started again at once; the back-off of `./polydev up` is tested where that one runs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const READY_DEADLINE_MS = 60_000;

export class Restartable {
  readonly #argv: readonly string[];
  readonly #logFile: string;
  #child: ChildProcess | undefined;
  /** How often it ended without having been killed by the harness. */
  crashes = 0;
  #wanted = false;

  constructor(argv: readonly string[], logFile: string) {
    this.#argv = argv;
    this.#logFile = logFile;
  }

  /** Starts it and waits for its line on standard output. Starts it again when it dies before. */
  async start(): Promise<void> {
    this.#wanted = true;
    const log = await open(this.#logFile, 'a');
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', process.execPath, ...this.#argv], {
      stdio: ['ignore', 'pipe', log.fd],
      cwd: '/',
      env: {
        PATH: process.env.PATH ?? '',
        NODE_OPTIONS: '--disable-warning=ExperimentalWarning',
        // It is started hundreds of times.
        NODE_COMPILE_CACHE: `${this.#logFile}.cache`,
      },
    });
    await log.close();
    this.#child = child;
    if (child.stdout === null) throw new Error('no pipe');
    const ready = once(createInterface({ input: child.stdout }), 'line');
    const gone = once(child, 'exit');
    gone.then(
      () => {
        if (this.#wanted && this.#child === child) this.crashes++;
      },
      () => undefined,
    );
    const late = new AbortController();
    const first = await Promise.race([
      ready.then(() => 'ready'),
      gone.then(([code, signal]) => `ended with ${signal ?? code}`),
      sleep(READY_DEADLINE_MS, 'was not ready in time', { signal: late.signal }).catch(() => ''),
    ]);
    late.abort();
    ready.catch(() => undefined);
    if (first === 'ready') return;
    const said = (await readFile(this.#logFile, 'utf8')).split('\n').slice(-8).join('\n');
    throw new Error(`${this.#argv[0]} ${first}:\n${said}`);
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Ends it and waits until it is gone. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#wanted = false;
    if (!this.running || this.#child === undefined) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill(signal);
    await gone;
  }
}
