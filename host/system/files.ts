/** Files that are whole or absent, wherever this process is killed. */
import { randomBytes } from 'node:crypto';
import { link, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { mountPoints } from './syscalls.ts';

const temporary = (path: string): string => join(dirname(path), `.${randomBytes(6).toString('hex')}.tmp`);

/** Replaces a file in one step. */
export async function writeAtomic(path: string, text: string | Buffer, mode = 0o600): Promise<void> {
  const draft = temporary(path);
  try {
    await writeFile(draft, text, { flag: 'wx', mode });
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/** Makes a file that must not exist yet, whole from its first moment. False when it exists. */
export async function createExclusive(path: string, text: string): Promise<boolean> {
  const draft = temporary(path);
  try {
    await writeFile(draft, text, { flag: 'wx', mode: 0o600 });
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

const absent = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** The text of a file, or undefined when there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (absent(error)) return undefined;
    throw error;
  }
}

/** A text as JSON; undefined when it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Names in a folder; none when it does not exist. */
export async function listIfThere(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).filter((name) => !name.startsWith('.'));
  } catch (error) {
    if (absent(error)) return [];
    throw error;
  }
}

/**
 * Removes a folder with everything in it, but never through a mount: what is bound there (a checkout, a machine's
 * disk) belongs to somebody else. Throws when something is still mounted below.
 */
export async function removeTree(path: string): Promise<void> {
  const below = mountPoints().find(({ target }) => target === path || target.startsWith(`${path}/`));
  if (below !== undefined) throw new Error(`not removing ${path}: ${below.target} is mounted`);
  await rm(path, { recursive: true, force: true });
}
