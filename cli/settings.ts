/**
 * cli/: the commands behind `./polydev`. This file is the one place where environment variables and defaults are read;
 * everything below gets a plain readonly object.
 */
import { createHash } from 'node:crypto';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Settings {
  /** The directory of this checkout. */
  readonly checkout: string;
  /** Downloads and images: can be deleted at any time, is then made again. */
  readonly cacheDir: string;
  /** What must not be lost: database, master key, private disks, evidence. */
  readonly dataDir: string;
  /** Sockets and pid files of this boot of the host. */
  readonly runDir: string;
  /** Six lower-case characters that mark this instance's namespaces, interfaces and control groups. */
  readonly instance: string;
  /** An external Postgres, or undefined for the embedded one. */
  readonly databaseUrl: string | undefined;
  /** Firecracker's program and its jailer; undefined: where one usually puts them. */
  readonly firecracker: string | undefined;
  readonly jailer: string | undefined;
  /**
   * Where the vault's master key comes from: a file in the data directory (made at the first start), or one of two
   * environment variables, which are handed to the controller alone.
   */
  readonly masterKey:
    | { readonly from: 'file' }
    | { readonly from: 'POLYDEV_MASTER_KEY' | 'POLYDEV_PASSPHRASE'; readonly value: string };
}

export function readSettings(options: { data?: string | undefined }): Settings {
  const root = process.getuid?.() === 0;
  const home = os.homedir();
  const cacheDir =
    process.env.POLYDEV_CACHE ?? (root ? '/var/cache/polydev' : path.join(home, '.cache', 'polydev'));
  const dataDir = path.resolve(
    options.data ??
      process.env.POLYDEV_DATA ??
      (root ? '/var/lib/polydev' : path.join(home, '.local', 'share', 'polydev')),
  );
  const instance = instanceName(dataDir);
  return {
    checkout: path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..'),
    cacheDir,
    dataDir,
    runDir: path.join('/run/polydev', instance),
    instance,
    databaseUrl: process.env.DATABASE_URL,
    firecracker: process.env.POLYDEV_FIRECRACKER,
    jailer: process.env.POLYDEV_JAILER,
    masterKey: masterKeySource(),
  };
}

function masterKeySource(): Settings['masterKey'] {
  for (const from of ['POLYDEV_MASTER_KEY', 'POLYDEV_PASSPHRASE'] as const) {
    const value = process.env[from];
    if (value !== undefined && value !== '') return { from, value };
  }
  return { from: 'file' };
}

/** The same data directory is always the same instance. */
export function instanceName(dataDir: string): string {
  const digest = createHash('sha256').update(dataDir).digest();
  return Array.from(digest.subarray(0, 6), (b) => 'abcdefghijklmnopqrstuvwxyz'[b % 26]).join('');
}

export const settingsPaths = (settings: Settings) => ({
  apiKey: path.join(settings.dataDir, 'controller', 'api-key'),
  masterKey: path.join(settings.dataDir, 'controller', 'master-key'),
  controllerData: path.join(settings.dataDir, 'controller'),
  hostData: path.join(settings.dataDir, 'host'),
  postgresData: path.join(settings.dataDir, 'postgres'),
  logs: path.join(settings.dataDir, 'logs'),
  lock: path.join(settings.dataDir, 'up.json'),
  images: path.join(settings.cacheDir, 'images'),
  hostSocket: path.join(settings.runDir, 'host', 'host.sock'),
  postgresSocket: path.join(settings.runDir, 'postgres'),
});
