/** The host service's settings: one JSON file, read once. */
import { readFile } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { PolydevError } from '../protocol/errors.ts';
import { SUBNETS } from './network/addresses.ts';
import { SHARED_FOLDER } from './system/ids.ts';

/** Nothing but a file name: never part of an option. */
const PlainPath = z.string().refine(isAbsolute, { message: 'must be an absolute path' });
/** A path that can be part of mount options: the overlay's hold these. */
export const MountablePath = z.string().refine((path) => isAbsolute(path) && !/[,:\\\s]/.test(path), {
  message: 'must be an absolute path without spaces, commas, colons and backslashes',
});

export const HostConfig = z.strictObject({
  /** Names everything of this instance on the host. */
  instance: z.string().regex(/^[a-z]{6}$/, 'must be 6 lower-case letters'),
  /** Disks of machines, consoles, evidence. */
  dataDir: MountablePath,
  /** Below /run: mounts, sockets, leases. Every user must be able to pass through its parents. */
  runDir: MountablePath,
  socketPath: MountablePath,
  /** The user that may talk to us. */
  socketUid: z.number().int().min(0),
  imageCacheDir: MountablePath,
  /** What runs machines; `auto` chooses by trying (see drivers/auto.ts); `qemu-kvm`: never by software emulation. */
  driver: z.enum(['auto', 'firecracker', 'namespace', 'qemu', 'qemu-kvm']).default('auto'),
  /** Firecracker's program, and its jailer if that is not beside it; default: where one usually puts them. */
  firecracker: PlainPath.optional(),
  jailer: PlainPath.optional(),
  /** How many times slower than hardware this computer's virtualization is: more than 1 where it is emulated itself. */
  slowdown: z.number().min(1).max(100).default(1),
  /** `none`: nothing is ever touched in the host's own network, and no machine reaches anything public. */
  uplink: z.enum(['nat', 'none']).default('nat'),
  subnet: z.cidrv4().default(SUBNETS[0]),
  /** IPv4 resolvers for machines; default: the host's own. */
  resolvers: z.array(z.ipv4()).min(1).max(3).optional(),
  /** Node and the repository, for the test identity provider. */
  nodePath: PlainPath,
  checkout: PlainPath,
  /** Claims that all instances of this host share. */
  sharedDir: MountablePath.default(SHARED_FOLDER),
  /** How much is kept of machines that are gone: the newest, up to both bounds. */
  evidence: z
    .strictObject({
      machines: z.number().int().min(1).max(100_000).default(200),
      totalMiB: z.number().int().min(16).max(1_000_000).default(512),
    })
    .prefault({}),
  /** The private disks of all machines may be this many times the size of the file system below `dataDir`, together. */
  diskOvercommit: z.number().min(0.01).max(1000).default(4),
  /** Whether machines of a driver that can start as copies of one that has booted (docs/drivers.md). */
  snapshotStart: z
    .strictObject({
      enabled: z.boolean().default(false),
      /** A template is made when no machine was started for so long, times the driver's slowdown. */
      idleSeconds: z.number().min(0).max(86_400).default(30),
    })
    .prefault({}),
  logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
});
export type HostConfig = z.infer<typeof HostConfig>;

/** Reads the file. Throws `configuration_invalid` naming the setting. */
export async function readConfig(path: string): Promise<HostConfig> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new PolydevError('configuration_invalid', `${path}: ${(error as Error).message}`, { cause: error });
  }
  const parsed = HostConfig.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(
    (issue) => `${issue.path.join('.') || 'settings'}: ${issue.message}`,
  );
  throw new PolydevError('configuration_invalid', `${path}: ${issues.join('; ')}`, { cause: parsed.error });
}
