/** A long-lived helper process (dnsmasq, the test identity provider): unprivileged, watched, restarted. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Logger } from 'pino';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';
import { spawnIn } from '../system/command.ts';
import { endProcess, identify } from '../system/processes.ts';

export interface ServiceOptions {
  name: string;
  argv: readonly string[];
  netns: string;
  /** Owner of the process: a number without an entry in /etc/passwd and without other processes. */
  uid: number;
  cwd: string;
  env?: Record<string, string>;
  /** Tells the line (of standard output or error) that says it is ready. */
  ready: (line: string) => boolean;
  readyTimeoutMs: number;
  failure: ErrorCode;
  log: Logger;
}

/** Drops everything but the right to listen on a port below 1024. */
const unprivileged = (uid: number): string[] => [
  'setpriv',
  ...['--reuid', String(uid), '--regid', String(uid), '--clear-groups', '--no-new-privs'],
  ...['--inh-caps', '-all,+net_bind_service', '--ambient-caps', '-all,+net_bind_service'],
  ...['--bounding-set', '-all,+net_bind_service', '--'],
];

export class Service implements AsyncDisposable {
  readonly #options: ServiceOptions;
  #child: ChildProcess | undefined;
  #ready = false;
  #closing = false;
  #restart: NodeJS.Timeout | undefined;
  /** The restart that is under way. Never rejects. */
  #launching: Promise<void> | undefined;
  #backoffMs = 500;
  readonly #lines: string[] = [];

  private constructor(options: ServiceOptions) {
    this.#options = options;
  }

  /** Starts it and waits until it is ready. Throws PolydevError with its last lines. */
  static async start(options: ServiceOptions, signal?: AbortSignal): Promise<Service> {
    const service = new Service(options);
    try {
      await service.#launch(signal);
      return service;
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Whether it runs and is ready now; false between a death and the end of the restart. */
  get alive(): boolean {
    return this.#ready;
  }

  async #launch(signal?: AbortSignal): Promise<void> {
    const { name, argv, netns, uid, cwd, env, ready, readyTimeoutMs, failure, log } = this.#options;
    const child = spawnIn(netns, [...unprivileged(uid), ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd,
      detached: true, // Ctrl-C in a terminal must not end it before its users
      ...(env === undefined ? {} : { env }),
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void =>
        reject(new PolydevError(failure, `${name}: ${why}`, { lines: this.#lines }));
      const timer = setTimeout(() => fail(`not ready after ${readyTimeoutMs} ms`), readyTimeoutMs);
      const aborted = (): void => fail('aborted');
      signal?.addEventListener('abort', aborted, { once: true });
      const settle = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
      };
      for (const stream of [child.stdout, child.stderr]) {
        if (stream === null) continue;
        createInterface({ input: stream }).on('line', (line) => {
          this.#lines.push(line.slice(0, 500));
          if (this.#lines.length > 40) this.#lines.shift();
          log.debug({ service: name }, line.slice(0, 500));
          if (!ready(line)) return;
          settle();
          this.#ready = this.#child === child;
          resolve();
        });
      }
      child.once('error', (error) => {
        settle();
        fail(error.message);
      });
      child.once('exit', (code, ended) => {
        settle();
        const launched = this.#ready;
        this.#forget(child);
        // A launch that fails is tried again by whoever launched.
        if (launched) this.#scheduleRestart(`ended with ${ended ?? `code ${code}`}`);
        else fail(`ended with ${ended ?? `code ${code}`}`);
      });
    }).catch(async (error: unknown) => {
      await this.#end(child);
      throw error;
    });
    this.#backoffMs = 500;
  }

  #scheduleRestart(why: string): void {
    if (this.#closing) return;
    const { name, log } = this.#options;
    const lines = this.#lines.slice(-5);
    log.error({ service: name, lines }, `${name}: ${why}; again in ${this.#backoffMs} ms`);
    this.#restart = setTimeout(() => {
      this.#launching = this.#launch().catch((error: unknown) =>
        this.#scheduleRestart(error instanceof Error ? error.message : String(error)),
      );
    }, this.#backoffMs);
    this.#backoffMs = Math.min(this.#backoffMs * 2, 30_000);
  }

  #forget(child: ChildProcess): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    this.#ready = false;
  }

  /** Ends a child, also one that never became ready or never ran. */
  async #end(child: ChildProcess): Promise<void> {
    const identity = child.pid === undefined ? undefined : identify(child.pid);
    if (identity !== undefined) await endProcess(identity, 2000);
    this.#forget(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#restart);
    if (this.#child !== undefined) await this.#end(this.#child);
    await this.#launching;
  }
}
