/** login/: one login at a time: the genuine CLI runs, its page is opened, its credential is awaited and judged. */
import { setTimeout as delay } from 'node:timers/promises';
import type { LoginStart, LoginState, LoginStatus } from '../../protocol/agent.ts';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';
import { redact } from '../../protocol/redact.ts';
import type { Provider } from '../../providers/provider.ts';
import { credentialStatus, readCredential } from '../credentials/credentials.ts';
import { Feed } from '../feed.ts';
import type { AgentLog } from '../log.ts';
import { type Child, type Exit, type Processes, readLines } from '../processes.ts';
import { watchDirectory } from '../watch.ts';
import { asCallback, deliverCallback } from './callback.ts';
import { BrowserShim } from './shim.ts';
import { Trace } from './trace.ts';

/** Whoever asked for the login ends it far earlier; this only keeps a forgotten CLI from waiting for ever. */
const LOGIN_DEADLINE_MS = 60 * 60_000;
/** How long a CLI may go on after its credential is complete: it shows its last page and ends by itself. */
const LINGER_MS = 10_000;
const MAX_TEXT = 64 * 1024;

const FINAL: ReadonlySet<LoginState> = new Set(['succeeded', 'failed', 'cancelled']);
export const isFinal = (state: LoginState): boolean => FINAL.has(state);

export interface LoginOptions {
  readonly processes: Processes;
  readonly log: AgentLog;
  /** A directory of the agent for this login; emptied. */
  readonly directory: string;
  readonly provider: Provider;
  readonly start: LoginStart;
  /** Shows the page to the person. Absent where there is no desktop: then somebody else opens it. */
  readonly open: ((url: URL) => Promise<void>) | undefined;
  /** How many times longer than usual the CLI may take to show its page; absent: 1. */
  readonly slowdown?: number | undefined;
}

export class Login {
  readonly #options: LoginOptions;
  readonly #feed = new Feed<LoginStatus>();
  readonly #over = new AbortController();
  readonly #shim: BrowserShim;
  readonly #trace: Trace | undefined;
  readonly #before: string;
  readonly #lines: string[] = [];
  #status: LoginStatus;
  #child: Child | undefined;
  #url: URL | undefined;
  /** What the CLI said and traced so far, secrets included; never leaves this object. */
  #text = '';
  #credentialSeen = false;
  #stopWatching: (() => void) | undefined;

  constructor(options: LoginOptions) {
    const { provider, processes, start } = options;
    this.#options = options;
    this.#status = { ...start, state: 'starting', url: null, error: null };
    this.#feed.push(this.#status);
    this.#shim = new BrowserShim(processes.person, options.directory);
    this.#trace =
      provider.login.trace === undefined ? undefined : new Trace(processes.person, provider.login.trace);
    this.#before = JSON.stringify(readCredential(processes.person, provider));
  }

  get status(): LoginStatus {
    return this.#status;
  }

  events(signal: AbortSignal): AsyncIterable<LoginStatus> {
    return this.#feed.read('last', signal);
  }

  /** Runs the CLI to its end. Never throws: whatever happens becomes the status. */
  async run(): Promise<void> {
    const { provider, log } = this.#options;
    try {
      log.add('login', `${provider.id}: starting ${provider.login.command.argv.join(' ')}`);
      const child = this.#startCli();
      const exit = await this.#watch(child);
      if (exit !== undefined) this.#judge(exit);
    } catch (thrown) {
      this.#fail(PolydevError.from(thrown, 'login_cli_failed'));
    } finally {
      await this.#cleanUp();
    }
  }

  /** Gives the CLI what the person pasted: a callback address, or a line of text where the CLI reads one. */
  async input(text: string): Promise<void> {
    if (isFinal(this.#status.state)) throw new PolydevError('conflict', 'the login is over');
    const callback = asCallback(text.trim(), this.#url);
    if (callback !== undefined) {
      await deliverCallback(callback, this.#over.signal);
      return;
    }
    const stdin = this.#child?.process.stdin;
    if (!stdin?.writable) {
      throw new PolydevError('bad_request', 'this CLI takes only the address that its page redirects to');
    }
    stdin.write(`${text.replace(/[\r\n]+/g, '')}\n`);
  }

  /** Ends the login; settles when the CLI is gone. */
  async cancel(): Promise<void> {
    this.#finish('cancelled', null);
    await this.#cleanUp();
  }

  #startCli(): Child {
    const { provider, processes } = this.#options;
    const { argv, env } = provider.login.command;
    const home = processes.person.home;
    const child = processes.start({
      argv,
      env: {
        ...Object.fromEntries(
          Object.entries(env).map(([key, value]) => [key, value.replace('{home}', home)]),
        ),
        BROWSER: this.#shim.command,
      },
      stdio: [provider.login.stdin === 'open' ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.process.stdin?.on('error', () => undefined);
    for (const stream of [child.process.stdout, child.process.stderr]) {
      readLines(stream, (line) => {
        this.#keepLine(line);
        this.#hear(line, 'output');
      });
    }
    this.#shim.listen((text) => this.#hear(text, 'browser-argv'));
    this.#trace?.follow((text) => this.#hearTrace(text));
    this.#stopWatching = watchDirectory(
      `${home}/${provider.credential.directory}`,
      1_000,
      () => void this.#lookAtCredential(),
    );
    return child;
  }

  /** Settles with the CLI's exit, or with nothing when the login was decided before it. */
  async #watch(child: Child): Promise<Exit | undefined> {
    const { provider } = this.#options;
    const over = this.#over.signal;
    const seconds = provider.login.urlDeadlineSeconds * (this.#options.slowdown ?? 1);
    delay(seconds * 1_000, undefined, { signal: over, ref: false })
      .then(() => {
        if (this.#url === undefined) this.#failNow('login_no_url', `no login URL within ${seconds} s`);
      })
      .catch(() => undefined);
    delay(LOGIN_DEADLINE_MS, undefined, { signal: over, ref: false })
      .then(() => this.#failNow('login_expired', 'nobody signed in within an hour'))
      .catch(() => undefined);
    const decided = new Promise<undefined>((resolve) => {
      if (over.aborted) resolve(undefined);
      over.addEventListener('abort', () => resolve(undefined), { once: true });
    });
    return Promise.race([child.exited, decided]);
  }

  #keepLine(line: string): void {
    const clean = redact(line);
    this.#lines.push(clean);
    if (this.#lines.length > 200) this.#lines.shift();
    this.#options.log.add('cli', clean);
  }

  #hear(text: string, source: 'output' | 'browser-argv'): void {
    this.#text = `${this.#text}${text}\n`.slice(-MAX_TEXT);
    const { login } = this.#options.provider;
    if (source === login.urlFrom && this.#url === undefined) {
      const url = login.findUrl(text);
      if (url !== undefined) this.#show(url);
    }
    this.#checkRejection();
  }

  #hearTrace(text: string): void {
    this.#text = `${this.#text}${text}\n`.slice(-MAX_TEXT);
    for (const line of text.split('\n')) if (line.trim() !== '') this.#keepLine(line);
    this.#checkRejection();
  }

  #checkRejection(): void {
    if (!this.#options.provider.login.rejectedWhileWaiting(this.#text)) return;
    this.#failNow(
      'login_rejected',
      'the answer that came back from the provider does not belong to this login',
    );
  }

  #show(url: URL): void {
    this.#url = url;
    const { open, log, provider } = this.#options;
    log.add('login', `${provider.id}: the page is at ${url.origin}`);
    // The page is offered before it is on the screen: whoever watches can follow the rest on the desktop.
    this.#set({ state: 'waiting_for_person', url: url.href });
    open?.(url).catch((thrown: unknown) => this.#fail(PolydevError.from(thrown, 'desktop_failed')));
  }

  /** A CLI that has what it came for and does not end is ended. */
  #lookAtCredential(): void {
    if (this.#credentialSeen || isFinal(this.#status.state) || !this.#credentialIsNew()) return;
    this.#credentialSeen = true;
    this.#options.log.add('login', `${this.#options.provider.id}: the credential is complete`);
    delay(LINGER_MS, undefined, { signal: this.#over.signal, ref: false })
      .then(() => this.#judge({ code: null, signal: null }))
      .catch(() => undefined);
  }

  #credentialIsNew(): boolean {
    const { processes, provider } = this.#options;
    if (credentialStatus(processes.person, provider).state !== 'complete') return false;
    return JSON.stringify(readCredential(processes.person, provider)) !== this.#before;
  }

  /** The CLI's exit code is not believed: what counts is a complete credential. */
  #judge(exit: Exit): void {
    if (isFinal(this.#status.state)) return;
    const { processes, provider } = this.#options;
    this.#shim.look();
    const trace = this.#trace?.read() ?? '';
    if (trace !== '') this.#hearTrace(trace);
    if (isFinal(this.#status.state)) return;
    const credential = credentialStatus(processes.person, provider);
    const how = exit.signal ?? `code ${exit.code}`;
    if (credential.state === 'complete' && (exit.code === 0 || this.#credentialIsNew())) {
      this.#finish('succeeded', null);
    } else if (this.#child?.startError !== undefined) {
      this.#failNow('login_cli_failed', `the CLI could not be started: ${this.#child.startError.message}`);
    } else if (credential.state === 'incomplete' && exit.code === 0) {
      this.#failNow('credential_incomplete', credential.problem ?? 'the credential is incomplete');
    } else if (exit.code === 0) {
      this.#failNow('credential_incomplete', 'the CLI ended as if logged in, but wrote no credential');
    } else if (this.#url === undefined) {
      this.#failNow('login_no_url', `the CLI ended with ${how} before it named a login page`);
    } else {
      const code = provider.login.explainFailure(this.#text);
      const sentence = {
        login_denied: 'consent was denied on the page of the provider',
        login_rejected: 'the answer of the provider was refused',
        login_cli_failed: `the CLI ended with ${how}`,
      } as const;
      this.#failNow(code, sentence[code]);
    }
  }

  #failNow(code: ErrorCode, message: string): void {
    this.#fail(new PolydevError(code, message, { lines: this.#lines }));
  }

  #fail(error: PolydevError): void {
    if (isFinal(this.#status.state)) return;
    this.#finish('failed', error);
  }

  #finish(state: 'succeeded' | 'failed' | 'cancelled', error: PolydevError | null): void {
    if (isFinal(this.#status.state)) return;
    this.#set({ state, error: error?.toReport() ?? null });
    this.#options.log.add(
      'login',
      `${this.#options.provider.id}: ${state}${error ? ` (${error.code})` : ''}`,
    );
    this.#feed.close();
    this.#over.abort();
  }

  #set(change: Partial<LoginStatus>): void {
    if (isFinal(this.#status.state)) return;
    this.#status = { ...this.#status, ...change };
    this.#feed.push(this.#status);
  }

  async #cleanUp(): Promise<void> {
    this.#over.abort();
    this.#shim.close();
    this.#trace?.close();
    this.#stopWatching?.();
    this.#text = '';
    if (this.#child !== undefined && !this.#child.ended) await this.#child.stop();
  }
}
