import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { asPerson, makePersonDirectory, type Person } from '../person.ts';
import { watchDirectory } from '../watch.ts';

/** What $BROWSER names. A file that appears by rename is whole, and a shell starts in a millisecond. */
const script = (inbox: string) => `#!/bin/sh
set -eu
for argument in "$@"; do printf '%s\\n' "$argument"; done > '${inbox}/.$$'
mv '${inbox}/.$$' '${inbox}/$$.argv'
`;

/** A stand-in for the browser that a CLI starts: it hands its arguments to the agent. */
export class BrowserShim {
  readonly command: string;
  readonly #inbox: string;
  readonly #person: Person;
  #stop: (() => void) | undefined;
  #onArguments: ((text: string) => void) | undefined;

  /** `directory` must lie where the person may not write; it is emptied. */
  constructor(person: Person, directory: string) {
    this.#person = person;
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    this.#inbox = path.join(directory, 'inbox');
    makePersonDirectory(person, this.#inbox);
    this.command = path.join(directory, 'browser');
    writeFileSync(this.command, script(this.#inbox), { mode: 0o755 });
  }

  /** Calls `onArguments` with the arguments of every start, one per line. */
  listen(onArguments: (text: string) => void): void {
    this.#onArguments = onArguments;
    this.#stop = watchDirectory(this.#inbox, 1_000, () => this.look());
  }

  /** Hands over at once what has come and was not noticed yet: a CLI that ends soon after is not ahead of its page. */
  look(): void {
    if (this.#onArguments === undefined) return;
    for (const text of this.#take()) this.#onArguments(text);
  }

  close(): void {
    this.#stop?.();
    this.#stop = undefined;
    this.#onArguments = undefined;
  }

  #take(): string[] {
    return asPerson(this.#person, () =>
      readdirSync(this.#inbox)
        .filter((name) => name.endsWith('.argv'))
        .flatMap((name) => {
          const file = path.join(this.#inbox, name);
          try {
            return [readFileSync(file, 'utf8').slice(0, 16_384)];
          } catch {
            return [];
          } finally {
            rmSync(file, { force: true });
          }
        }),
    );
  }
}
