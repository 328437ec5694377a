/** terminal/: pseudo terminals of the person that outlive a dropped connection. */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { IPty } from '@lydell/node-pty';
import type { TerminalSize, TerminalStart } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentLog } from '../log.ts';
import { type Processes, unspared } from '../processes.ts';

const MAX_TERMINALS = 16;
const REPLAY_BYTES = 64 * 1024;
const ABANDONED_MS = 10 * 60_000;

export class Terminals {
  readonly #processes: Processes;
  readonly #log: AgentLog;
  readonly #open = new Map<string, Terminal>();

  constructor(processes: Processes, log: AgentLog) {
    this.#processes = processes;
    this.#log = log;
  }

  /** Starts a program (a login shell unless told) on a new pseudo terminal and returns the terminal's id. */
  async start(start: TerminalStart): Promise<string> {
    if (this.#open.size >= MAX_TERMINALS) {
      throw new PolydevError('rate_limited', `${MAX_TERMINALS} terminals are open already`);
    }
    const { person } = this.#processes;
    const [file = '/bin/bash', ...args] = start.argv ?? ['/bin/bash', '-l'];
    // Loaded when first needed: a browser machine usually has no terminal.
    const { spawn } = await import('@lydell/node-pty');
    const pty = unspared(() =>
      spawn(file, args, {
        name: 'xterm-256color',
        cols: start.cols,
        rows: start.rows,
        cwd: person.home,
        env: this.#processes.env({ COLORTERM: 'truecolor' }),
        encoding: null,
        ...(person.ids ?? {}),
      }),
    );
    const id = randomBytes(12).toString('hex');
    this.#open.set(id, new Terminal(pty, () => this.#open.delete(id)));
    this.#log.add('terminal', `${id} started`);
    return id;
  }

  /** The terminal of that id; `not_found` when it is closed. */
  get(id: string | undefined): Terminal {
    const terminal = this.#open.get(id ?? '');
    if (terminal === undefined) throw new PolydevError('not_found', 'there is no such terminal');
    return terminal;
  }

  closeAll(): void {
    for (const terminal of [...this.#open.values()]) terminal.close();
  }
}

export class Terminal {
  readonly #pty: IPty;
  readonly #onClosed: () => void;
  #replay: Buffer[] = [];
  #replaySize = 0;
  #stream: Duplex | undefined;
  #ended = false;
  #abandoned: NodeJS.Timeout | undefined;

  constructor(pty: IPty, onClosed: () => void) {
    this.#pty = pty;
    this.#onClosed = onClosed;
    // With `encoding: null` the data are bytes, whatever the declaration says.
    pty.onData((data) => this.#onData(Buffer.from(data)));
    pty.onExit(() => {
      this.#ended = true;
      if (this.#stream !== undefined) this.close();
    });
    this.#expectReader();
  }

  resize(size: TerminalSize): void {
    if (!this.#ended) this.#pty.resize(size.cols, size.rows);
  }

  /** Connects a stream: it gets the last output again, then what comes. An earlier stream is closed. */
  attach(stream: Duplex): void {
    this.#stream?.destroy();
    clearTimeout(this.#abandoned);
    this.#stream = stream;
    // What a person types or pastes is UTF-8; a character cut between two chunks is put together again.
    const decoder = new StringDecoder('utf8');
    stream.on('data', (chunk: Buffer) => {
      if (!this.#ended) this.#pty.write(decoder.write(chunk));
    });
    stream.on('drain', () => this.#flow(true));
    stream.on('end', () => stream.end());
    stream.on('close', () => {
      if (this.#stream !== stream) return;
      this.#stream = undefined;
      this.#flow(true);
      this.#expectReader();
    });
    if (this.#replaySize > 0) this.#flow(stream.write(Buffer.concat(this.#replay)));
    if (this.#ended) this.close();
  }

  /** Hangs up: the programs on the terminal get SIGHUP, as when a window is closed. */
  close(): void {
    clearTimeout(this.#abandoned);
    this.#onClosed();
    this.#stream?.end();
    this.#stream = undefined;
    if (this.#ended) return;
    this.#ended = true;
    try {
      process.kill(-this.#pty.pid, 'SIGHUP');
      this.#pty.kill('SIGHUP');
    } catch {
      // It has ended by itself.
    }
    const { pid } = this.#pty;
    setTimeout(() => {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // It went quietly.
      }
    }, 2_000).unref();
  }

  #onData(data: Buffer): void {
    this.#replay.push(data);
    this.#replaySize += data.length;
    while (this.#replaySize - (this.#replay[0]?.length ?? 0) >= REPLAY_BYTES) {
      this.#replaySize -= this.#replay.shift()?.length ?? 0;
    }
    if (this.#stream?.writable && !this.#stream.write(data)) this.#flow(false);
  }

  /** While the reader is slow, the programs wait instead of the agent's memory growing. */
  #flow(on: boolean): void {
    if (this.#ended) return;
    if (on) this.#pty.resume();
    else this.#pty.pause();
  }

  #expectReader(): void {
    this.#abandoned = setTimeout(() => this.close(), ABANDONED_MS);
    this.#abandoned.unref();
  }
}
