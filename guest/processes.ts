/** Children of the agent: each in its own process group, as the person, its lines read, ended as a group. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { PolydevError } from '../protocol/errors.ts';
import { environment, type Person, type Surroundings } from './person.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Program {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdio: StdioOptions;
}

export class Child {
  readonly process: ChildProcess;
  /** Settles when the program has ended and its output is read; a program that cannot start ends with code 127. */
  readonly exited: Promise<Exit>;
  /** Why it could not be started. */
  startError: Error | undefined;
  #ended = false;

  constructor(process: ChildProcess) {
    this.process = process;
    this.exited = new Promise((resolve) => {
      process.once('error', (error) => {
        if (process.pid !== undefined) return;
        this.startError = error;
        this.#ended = true;
        resolve({ code: 127, signal: null });
      });
      process.once('exit', () => {
        this.#ended = true;
      });
      process.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Sends a signal to the whole group. */
  signal(signal: NodeJS.Signals): void {
    const { pid } = this.process;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // The group is gone.
    }
  }

  /** SIGTERM to the group, SIGKILL after `graceMs`; settles when the program has ended. */
  async stop(graceMs = 2_000): Promise<Exit> {
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    // Whoever inherited the output could hold it open for ever: the group dies with its leader.
    this.process.once('exit', () => this.signal('SIGKILL'));
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
      this.signal('SIGKILL');
    }
  }
}

const OOM_SCORE = '/proc/self/oom_score_adj';

/**
 * Starts a program that the kernel may end when memory runs out, where it should spare the agent (its unit's OOMScoreAdjust): a child
 * has its parent's score, so the agent has the usual one for that moment. `start` must be synchronous.
 */
export function unspared<T>(start: () => T, score = OOM_SCORE): T {
  const own = readFileSync(score, 'utf8').trim();
  if (!own.startsWith('-')) return start();
  writeFileSync(score, '0');
  try {
    return start();
  } finally {
    writeFileSync(score, own);
  }
}

/** Starts programs as the person and ends what is left when the agent ends. */
export class Processes {
  readonly person: Person;
  readonly surroundings: Surroundings = {};
  readonly #running = new Set<Child>();

  constructor(person: Person) {
    this.person = person;
  }

  env(extra?: Readonly<Record<string, string>>): Record<string, string> {
    return environment(this.person, this.surroundings, extra);
  }

  start(program: Program): Child {
    const [file, ...args] = program.argv;
    if (file === undefined) throw new PolydevError('bad_request', 'argv is empty');
    const child = new Child(
      unspared(() =>
        spawn(file, args, {
          cwd: program.cwd ?? this.person.home,
          env: this.env(program.env),
          stdio: program.stdio,
          detached: true,
          ...(this.person.ids ?? {}),
        }),
      ),
    );
    this.#running.add(child);
    void child.exited.then(() => this.#running.delete(child));
    return child;
  }

  /** Ends every child that still runs. */
  async stopAll(graceMs: number): Promise<void> {
    await Promise.all([...this.#running].map((child) => child.stop(graceMs)));
  }
}

/** Calls `onLine` for every line of a child's output; a line is cut at 8,000 characters. */
export function readLines(stream: Readable | null, onLine: (line: string) => void): void {
  if (stream === null) return;
  const decoder = new StringDecoder('utf8');
  let rest = '';
  stream.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split(/\r?\n/);
    rest = (lines.pop() ?? '').slice(-8_000);
    for (const line of lines) if (line.trim() !== '') onLine(line);
  });
  stream.on('end', () => {
    if (rest.trim() !== '') onLine(rest);
  });
  stream.on('error', () => undefined);
}
