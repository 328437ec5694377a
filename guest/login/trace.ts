import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { asPerson, type Person } from '../person.ts';
import { watchDirectory } from '../watch.ts';

const MAX_READ = 256 * 1024;

/** Follows the log a CLI keeps of its own login, from its length at the start on. */
export class Trace {
  readonly #person: Person;
  readonly #file: string;
  #offset: number;
  #stop: (() => void) | undefined;

  constructor(person: Person, relative: string) {
    this.#person = person;
    this.#file = path.join(person.home, relative);
    this.#offset = this.#open((_, size) => size) ?? 0;
  }

  /** Calls `onText` with what the log gained. Watching starts when the directory exists, at the latest in a second. */
  follow(onText: (text: string) => void): void {
    this.#stop = watchDirectory(path.dirname(this.#file), 500, () => {
      const text = this.read();
      if (text !== '') onText(text);
    });
  }

  /** What the log gained since the last look. */
  read(): string {
    return (
      this.#open((descriptor, size) => {
        // A log that shrank was started anew.
        if (size < this.#offset) this.#offset = 0;
        const buffer = Buffer.alloc(Math.min(size - this.#offset, MAX_READ));
        const count = readSync(descriptor, buffer, 0, buffer.length, this.#offset);
        this.#offset += count;
        return buffer.toString('utf8', 0, count);
      }) ?? ''
    );
  }

  close(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  #open<T>(use: (descriptor: number, size: number) => T): T | undefined {
    return asPerson(this.#person, () => {
      let descriptor: number;
      try {
        descriptor = openSync(this.#file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
      } catch {
        return undefined;
      }
      try {
        const stat = fstatSync(descriptor);
        return stat.isFile() ? use(descriptor, stat.size) : undefined;
      } finally {
        closeSync(descriptor);
      }
    });
  }
}
