/**
 * desktop/: the person's desktop: Xvnc, openbox and Chromium, started and kept running.
 *
 * How "painted" is known: the agent looks at the screen as a viewer would (RFB, incremental updates) at a place in the
 * start page that has a colour nothing else has. A mapped window (xdotool search --sync) would be earlier and prove less.
 */
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { PolydevError } from '../../protocol/errors.ts';
import type { Display } from '../../protocol/machine.ts';
import type { BootChecklist } from '../boot/checklist.ts';
import type { AgentLog } from '../log.ts';
import { makePersonDirectory } from '../person.ts';
import { type Child, type Processes, readLines } from '../processes.ts';
import { handOver, startChromium } from './chromium.ts';
import { waitForPixels } from './rfb.ts';
import { isPageColour, START_PAGE } from './start-page.ts';
import { startXvnc, type XServer } from './xvnc.ts';

/** Generous, for machines without hardware virtualization. */
const X_DEADLINE_MS = 30_000;
const PAINT_DEADLINE_MS = 90_000;
const OPEN_DEADLINE_MS = 60_000;
const MAX_RESTARTS = 3;

export interface DesktopOptions {
  readonly processes: Processes;
  readonly log: AgentLog;
  readonly checklist: BootChecklist;
  readonly display: Display;
  /** The agent's own directory; the desktop makes its files below it. */
  readonly directory: string;
  /** How many times longer than usual programs may take; absent: 1. */
  readonly slowdown?: number | undefined;
}

export class Desktop {
  readonly #options: DesktopOptions;
  readonly #slowdown: number;
  readonly #rfbSocket: string;
  readonly #startPage: string;
  readonly #stopped = new AbortController();
  #painted = Promise.withResolvers<void>();
  #server: XServer | undefined;
  #page: URL | undefined;
  #everPainted = false;

  constructor(options: DesktopOptions) {
    this.#options = options;
    this.#slowdown = options.slowdown ?? 1;
    this.#rfbSocket = path.join(options.directory, 'desktop', 'vnc.sock');
    this.#startPage = path.join(options.directory, 'start.html');
    this.#painted.promise.catch(() => undefined);
  }

  /**
   * Runs the desktop until `stop`. `systemReady` settles when Chromium may start (policies are in place); Xvnc does not
   * wait for it. What cannot be kept running ends the boot as `desktop_failed`.
   */
  async run(systemReady: Promise<void>): Promise<void> {
    const { checklist, log, directory, processes } = this.#options;
    try {
      makePersonDirectory(processes.person, path.join(directory, 'desktop'));
      writeFileSync(this.#startPage, START_PAGE, { mode: 0o644 });
      await this.#supervise(systemReady);
    } catch (thrown) {
      if (this.#stopped.signal.aborted) return;
      const error = PolydevError.from(thrown, 'desktop_failed');
      log.add('desktop', error.message);
      this.#painted.reject(error);
      checklist.fail(error);
    }
  }

  /** Opens a page in the browser, once it is on the screen. */
  async open(url: URL): Promise<void> {
    const { processes, log, display } = this.#options;
    // A browser that has to be started again opens this page.
    this.#page = url;
    await this.#painted.promise;
    const child = handOver(processes, log, { display, slowdown: this.#slowdown }, url);
    const timer = setTimeout(() => void child.stop(), OPEN_DEADLINE_MS * this.#slowdown);
    const { code, signal } = await child.exited;
    clearTimeout(timer);
    if (code === 0) return;
    throw new PolydevError('desktop_failed', `the page could not be opened: ${signal ?? `code ${code}`}`, {
      lines: log.last('chromium', 20),
    });
  }

  /** A new connection to the desktop, speaking RFB. */
  connect(): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path: this.#rfbSocket });
      socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')));
      socket.once('error', (cause) =>
        reject(new PolydevError('not_ready', `the desktop cannot be reached: ${cause.message}`, { cause })),
      );
      socket.once('connect', () => {
        socket.setTimeout(0);
        socket.removeAllListeners('error');
        resolve(socket);
      });
    });
  }

  /** Ends the supervision; the processes themselves are ended by their owner. */
  stop(): void {
    this.#stopped.abort();
  }

  async #supervise(systemReady: Promise<void>): Promise<void> {
    const { log } = this.#options;
    let crashes = 0;
    while (!this.#stopped.signal.aborted) {
      const began = Date.now();
      const server = await this.#ensureServer();
      await systemReady;
      const browser = this.#startBrowser();
      const ended = await Promise.race([
        browser.exited.then((exit) => ({ what: 'Chromium', exit })),
        server.child.exited.then((exit) => ({ what: 'Xvnc', exit })),
      ]);
      if (this.#stopped.signal.aborted) return;
      if (ended.what === 'Xvnc') await browser.stop();
      this.#painted.promise.catch(() => undefined);
      this.#painted = Promise.withResolvers();
      this.#painted.promise.catch(() => undefined);

      const lived = Date.now() - began;
      const how = ended.exit.signal ?? `code ${ended.exit.code}`;
      log.add('desktop', `${ended.what} ended with ${how} after ${lived} ms`);
      if (lived > 60_000) crashes = 0;
      // Whoever closes the last window wants a new one, not a broken machine.
      if (ended.exit.code !== 0 || lived < 10_000) crashes += 1;
      if (crashes > MAX_RESTARTS) {
        const source = ended.what === 'Xvnc' ? 'xvnc' : 'chromium';
        throw new PolydevError(
          'desktop_failed',
          `${ended.what} ended ${crashes} times, at last with ${how}`,
          {
            lines: log.last(source, 20),
          },
        );
      }
      await delay(250 * 2 ** crashes, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
    }
  }

  async #ensureServer(): Promise<XServer> {
    const { processes, log, display, checklist } = this.#options;
    if (this.#server !== undefined && !this.#server.child.ended) return this.#server;
    const server = await startXvnc(processes, log, display, this.#rfbSocket, X_DEADLINE_MS * this.#slowdown);
    this.#server = server;
    processes.surroundings.display = server.display;
    checklist.stamp('desktop');
    const manager = processes.start({ argv: ['openbox', '--sm-disable'], stdio: ['ignore', 'pipe', 'pipe'] });
    readLines(manager.process.stdout, (line) => log.add('openbox', line));
    readLines(manager.process.stderr, (line) => log.add('openbox', line));
    void manager.exited.then(({ code, signal }) => {
      if (!this.#stopped.signal.aborted) log.add('openbox', `ended with ${signal ?? `code ${code}`}`);
    });
    return server;
  }

  #startBrowser(): Child {
    const { processes, log, display, checklist } = this.#options;
    // Until the start page was seen once, it is what the boot waits for.
    const first = !this.#everPainted;
    const page = first || this.#page === undefined ? pathToFileURL(this.#startPage) : this.#page;
    const browser = startChromium(processes, log, { display, slowdown: this.#slowdown }, page.href);
    const painted = this.#painted;
    const over = new AbortController();
    void browser.exited.then(() => over.abort());
    if (first) {
      const area = { x: Math.floor(display.width / 2) - 32, y: display.height - 80, width: 64, height: 16 };
      const paintMs = PAINT_DEADLINE_MS * this.#slowdown;
      const deadline = AbortSignal.timeout(paintMs);
      const signal = AbortSignal.any([over.signal, this.#stopped.signal, deadline]);
      waitForPixels(this.#rfbSocket, area, isPageColour, signal).then(
        () => {
          this.#everPainted = true;
          checklist.stamp('browser');
          painted.resolve();
        },
        (cause: unknown) => {
          if (over.signal.aborted || this.#stopped.signal.aborted) return;
          const error = new PolydevError(
            'desktop_failed',
            `Chromium painted no page within ${paintMs / 1000} s`,
            { cause, lines: log.last('chromium', 20) },
          );
          painted.reject(error);
          checklist.fail(error);
        },
      );
    } else {
      // The page it was to open is already its first one; a second hand-over finds the browser or starts it.
      painted.resolve();
    }
    return browser;
  }
}
