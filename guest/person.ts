/** The person who works in the machine: ids, home and the environment of everything that is theirs. */
import { chownSync, mkdirSync } from 'node:fs';

export interface Person {
  readonly name: string;
  readonly home: string;
  /** Undefined: the agent's own ids are kept (it does not run as root). */
  readonly ids: { readonly uid: number; readonly gid: number } | undefined;
  /** Where the CLIs are looked for. */
  readonly path: string;
}

/** The person of the golden image. An agent that is not root cannot change ids and works as itself. */
export function imagePerson(home = '/home/person'): Person {
  return {
    name: 'person',
    home,
    ids: process.getuid?.() === 0 ? { uid: 1000, gid: 1000 } : undefined,
    path: '/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games',
  };
}

/** What the agent adds for every program of the person once it is known. */
export interface Surroundings {
  /** A directory of the person that ends with the machine. */
  runtimeDirectory?: string;
  /** `:0`, on a machine with a desktop. */
  display?: string;
  /** The bundle that includes the machine's extra authorities. */
  caBundle?: string;
}

/** The environment of a program of the person; nothing of the agent's own environment leaks in. */
export function environment(
  person: Person,
  around: Surroundings,
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  return {
    HOME: person.home,
    USER: person.name,
    LOGNAME: person.name,
    SHELL: '/bin/bash',
    PATH: `${person.home}/.local/bin:${person.path}`,
    LANG: 'C.UTF-8',
    TERM: 'xterm-256color',
    ...(around.runtimeDirectory === undefined ? {} : { XDG_RUNTIME_DIR: around.runtimeDirectory }),
    ...(around.display === undefined ? {} : { DISPLAY: around.display }),
    ...(around.caBundle === undefined
      ? {}
      : { NODE_EXTRA_CA_CERTS: around.caBundle, SSL_CERT_FILE: around.caBundle }),
    ...extra,
  };
}

/**
 * Runs `work` with the person's rights, so that a link the person planted in the home leads nowhere the person could
 * not write anyway. `work` must be synchronous: the ids are those of the whole process while it runs.
 */
export function asPerson<T>(person: Person, work: () => T): T {
  const { ids } = person;
  if (ids === undefined || process.setegid === undefined || process.seteuid === undefined) return work();
  process.setegid(ids.gid);
  try {
    process.seteuid(ids.uid);
    return work();
  } finally {
    process.seteuid(0);
    process.setegid(0);
  }
}

/** Makes a directory that belongs to the person at a place the person may not write to. */
export function makePersonDirectory(person: Person, directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (person.ids !== undefined) chownSync(directory, person.ids.uid, person.ids.gid);
}
