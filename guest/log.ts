/** The agent's own log: bounded in memory, mirrored to stderr (the machine's console), redacted on the way in. */
import { redact } from '../protocol/redact.ts';

const MAX_LINES = 3_000;

export class AgentLog {
  #lines: string[] = [];
  readonly #mirror: (line: string) => void;

  constructor(mirror: (line: string) => void = (line) => void process.stderr.write(`${line}\n`)) {
    this.#mirror = mirror;
  }

  /** Adds one line; `source` names the part or the child that said it. */
  add(source: string, message: string): void {
    const line = `${new Date().toISOString()} ${source}: ${redact(message)}`;
    this.#lines.push(line);
    if (this.#lines.length > MAX_LINES + 500) this.#lines = this.#lines.slice(-MAX_LINES);
    this.#mirror(line);
  }

  /** The lines kept, oldest first, each ended by a newline. */
  text(): string {
    return this.#lines
      .slice(-MAX_LINES)
      .map((line) => `${line}\n`)
      .join('');
  }

  /** The last `count` lines of one source or of sources that start with it, without the time. */
  last(source: string, count: number): string[] {
    return this.#lines
      .filter((line) => line.startsWith(source, line.indexOf(' ') + 1))
      .slice(-count)
      .map((line) => line.slice(line.indexOf(' ') + 1));
  }
}
