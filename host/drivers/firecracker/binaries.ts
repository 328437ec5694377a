/** Firecracker and its jailer on this computer: where they are and whether their version is one we know. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import { run } from '../../system/command.ts';

/** Older ones lack what the driver asks for: a limited serial port, and a clock that is right after a snapshot. */
const OLDEST = { major: 1, minor: 16 };
const USUAL_FOLDERS = ['/usr/local/bin', '/usr/bin'];
const VERSION_TIMEOUT_MS = 5000;

export interface Binaries {
  firecracker: string;
  jailer: string;
  /** For example 1.16.1. */
  version: string;
}

/** The version in what `--version` printed of a program called `name`; undefined when it says none. */
export const versionIn = (name: 'Firecracker' | 'Jailer', text: string): string | undefined =>
  new RegExp(`^${name} v(\\d+\\.\\d+\\.\\d+\\S*)`, 'm').exec(text)?.[1];

export function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST.major || (major === OLDEST.major && minor >= OLDEST.minor);
}

const unusable = (message: string, cause?: unknown): PolydevError =>
  new PolydevError('driver_unusable', `firecracker: ${message}`, { cause });

async function versionOf(name: 'Firecracker' | 'Jailer', path: string, signal: AbortSignal): Promise<string> {
  const text = await run([path, '--version'], { signal, timeoutMs: VERSION_TIMEOUT_MS }).catch(
    (error: unknown) => {
      throw unusable(`${path} --version: ${error instanceof Error ? error.message : String(error)}`, error);
    },
  );
  const version = versionIn(name, text);
  if (version === undefined) throw unusable(`${path} does not say that it is ${name}`);
  return version;
}

/** Where the setting says, or where one usually puts it; undefined: nowhere. */
export function findFirecracker(configured: string | undefined): string | undefined {
  const places =
    configured === undefined ? USUAL_FOLDERS.map((folder) => join(folder, 'firecracker')) : [configured];
  return places.find((place) => existsSync(place));
}

/** Throws `driver_unusable` that says what was found and what to do. */
export async function findBinaries(
  settings: { firecracker?: string | undefined; jailer?: string | undefined },
  signal: AbortSignal,
): Promise<Binaries> {
  const firecracker = findFirecracker(settings.firecracker);
  if (firecracker === undefined) {
    const where = settings.firecracker ?? USUAL_FOLDERS.join(' and ');
    throw unusable(
      `not found at ${where}: put it and its jailer there, or set POLYDEV_FIRECRACKER to its path`,
    );
  }
  const jailer = settings.jailer ?? join(dirname(firecracker), 'jailer');
  if (!existsSync(jailer)) {
    throw unusable(`no jailer at ${jailer}: put the one of the same release there, or set POLYDEV_JAILER`);
  }
  const version = await versionOf('Firecracker', firecracker, signal);
  if (!isNewEnough(version)) {
    throw unusable(
      `${firecracker} is version ${version}; ${OLDEST.major}.${OLDEST.minor} or newer is needed: install a newer release`,
    );
  }
  const jailerVersion = await versionOf('Jailer', jailer, signal);
  if (jailerVersion !== version) {
    throw unusable(
      `${jailer} is version ${jailerVersion} and Firecracker ${version}: install both of one release`,
    );
  }
  return { firecracker, jailer, version };
}
