/**
 * `images/packages.lock.json`: the version of every Debian package in the base layer, as of the build that was last accepted. It is part
 * of the layer's identity, so that accepting newer packages gives a new image. A mirror of a stable release drops older versions:
 * a build takes what is there and says what differs, or refuses it when told to.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { replaceFile } from './manifest.ts';

/** Versions by package name. */
export type Versions = Readonly<Record<string, string>>;

const Lock = z.strictObject({
  suite: z.string(),
  /** Debian's name of an architecture -> package -> version. */
  architectures: z.record(z.string(), z.record(z.string(), z.string())),
});
export type PackageLock = z.infer<typeof Lock>;

export const lockFile = (checkout: string): string => path.join(checkout, 'images/packages.lock.json');

/** Throws `configuration_invalid` when it is not there or of another shape. */
export async function readPackageLock(checkout: string): Promise<PackageLock> {
  const file = lockFile(checkout);
  try {
    return Lock.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch (error) {
    throw new PolydevError('configuration_invalid', `${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** The locked versions of one suite and architecture; undefined when nothing is locked for them. */
export function lockedVersions(lock: PackageLock, suite: string, architecture: string): Versions | undefined {
  return lock.suite === suite ? lock.architectures[architecture] : undefined;
}

/** A line for each package that is not as locked: `name: locked -> found`, with `none` for one that is not there. */
export function differences(locked: Versions, found: Versions): string[] {
  const names = [...new Set([...Object.keys(locked), ...Object.keys(found)])].sort();
  return names
    .filter((name) => locked[name] !== found[name])
    .map((name) => `${name}: ${locked[name] ?? 'none'} -> ${found[name] ?? 'none'}`);
}

/** Writes `versions` as the lock of a suite and architecture; what is locked for other architectures stays. */
export async function writePackageLock(
  checkout: string,
  suite: string,
  architecture: string,
  versions: Versions,
): Promise<void> {
  const before = await readPackageLock(checkout).catch(() => undefined);
  const others = before?.suite === suite ? before.architectures : {};
  const sorted = Object.fromEntries(Object.entries(versions).sort(([a], [b]) => (a < b ? -1 : 1)));
  const lock: PackageLock = { suite, architectures: { ...others, [architecture]: sorted } };
  await replaceFile(lockFile(checkout), `${JSON.stringify(lock, null, 2)}\n`);
}
