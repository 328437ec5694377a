/** testing/: for tests: the workflows' host as a process of its own, so that it can be killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { SessionId } from '../../../protocol/ids.ts';

export interface ChildOptions {
  databaseUrl: string;
  hostSocket: string;
  masterKey: string;
}

/** Starts `child.ts` and resolves when its services run. */
export async function startController(options: ChildOptions): Promise<ControllerProcess> {
  const script = fileURLToPath(new URL('child.ts', import.meta.url));
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'pipe'] });
  const controller = new ControllerProcess(child);
  child.stdin?.write(`${JSON.stringify(options)}\n`);
  await controller.said((line) => line === 'ready');
  return controller;
}

export class ControllerProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<() => void>();
  #log = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    const { stdout, stderr } = child;
    if (stdout === null || stderr === null) throw new Error('the child has no pipes');
    createInterface({ input: stdout }).on('line', (line) => {
      this.#lines.push(line);
      for (const check of this.#waiting) check();
    });
    stderr.setEncoding('utf8').on('data', (chunk: string) => {
      this.#log += chunk;
    });
    child.once('exit', () => {
      for (const check of this.#waiting) check();
    });
  }

  /** Everything it logged. */
  get log(): string {
    return this.#log;
  }

  /** Waits for a line on its standard output. */
  async said(test: (line: string) => boolean): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const check = () => {
      const line = this.#lines.find(test);
      if (line !== undefined) resolve(line);
      else if (this.#child.exitCode !== null) reject(new Error(`the controller ended: ${this.#log}`));
    };
    this.#waiting.add(check);
    check();
    try {
      return await promise;
    } finally {
      this.#waiting.delete(check);
    }
  }

  /** Starts a session of the person, realm test. */
  async login(userId: string): Promise<SessionId> {
    this.#child.stdin?.write(`${JSON.stringify({ userId })}\n`);
    const line = await this.said((text) => text.startsWith(`session ${userId} `));
    return line.split(' ')[2] as SessionId;
  }

  /** kill -9. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }

  /** SIGTERM: it disposes its services and ends. */
  async stop(): Promise<number | null> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await gone;
    return this.#child.exitCode;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}
