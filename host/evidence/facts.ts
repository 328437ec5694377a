/** What is so on this host and around one machine at one moment: looked up, not read from a log. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat, statfs } from 'node:fs/promises';
import { loadavg, release } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { agentVersionOf } from '../images/manifest.ts';
import type { ImageStore } from '../images/store.ts';
import { isInstalled, MACHINE_PACKAGES } from '../packages.ts';
import { PLAIN_ENVIRONMENT } from '../system/command.ts';

const Space = z.object({ total: z.number(), available: z.number() });

/** What is so of a virtual machine's hypervisor. */
export const HypervisorFacts = z.object({
  /** What it answers on its control socket when asked how the guest is, or why it did not answer. */
  state: z.string(),
  /** The guest's kernel command line, as the running hypervisor has it; null: it does not run. */
  kernelArguments: z.string().nullable(),
});
export type HypervisorFacts = z.infer<typeof HypervisorFacts>;

/** What the kernel says of a machine's limits. Counts are since the machine's start. */
export const GuestFacts = z.object({
  memoryMiB: z.object({ limit: z.number(), peak: z.number().nullable(), used: z.number().nullable() }),
  /** Processes that the out-of-memory killer ended. */
  oomKills: z.number().int(),
  pids: z.object({ limit: z.number().int(), refused: z.number().int(), used: z.number().int().nullable() }),
  /** Of the private disk's file system, KiB. */
  diskKiB: Space.nullable(),
  /** Absent: the machine is no virtual one. */
  hypervisor: HypervisorFacts.optional(),
});
export type GuestFacts = z.infer<typeof GuestFacts>;

export const NetworkFacts = z.object({
  address: z.string().nullable(),
  leases: z.object({ held: z.number().int(), size: z.number().int() }),
  namespace: z.boolean(),
  /** The machine's own interface: null when it has none. */
  device: z.object({ name: z.string(), up: z.boolean() }).nullable(),
  /** The bridge that the machine's link is a port of. */
  bridge: z.string().nullable().default(null),
  /** Machine namespaces of this instance that hold the machine's address. */
  addressOwners: z.array(z.string()),
  /** Null when it was not asked. `said` is the answer's name, or why there was none. */
  resolver: z.object({ address: z.string(), answers: z.boolean(), said: z.string() }).nullable(),
  provider: z.object({ address: z.string(), reachable: z.boolean(), said: z.string() }).nullable(),
  /** Ports that programs of the machine listen on; null when it was not looked up. */
  listening: z.array(z.number().int()).nullable(),
});
export type NetworkFacts = z.infer<typeof NetworkFacts>;

export const ImageFacts = z.object({
  id: z.string(),
  agentVersion: z.string().nullable(),
  /** `unread`: its length is right, its bytes were not compared. */
  layers: z.array(
    z.object({
      file: z.string(),
      state: z.enum(['whole', 'unread', 'missing', 'wrong_length', 'wrong_bytes']),
    }),
  ),
});
export type ImageFacts = z.infer<typeof ImageFacts>;

export const Facts = z.object({
  at: z.iso.datetime({ precision: 3 }),
  kernel: z.string(),
  load: z.array(z.number()),
  memoryMiB: Space,
  /** Of the data directory's file system, KiB. */
  diskKiB: Space,
  /** Programs that the host service needs and cannot execute now. */
  missingPrograms: z.array(z.string()),
  image: ImageFacts.nullable(),
  guest: GuestFacts.nullable(),
  network: NetworkFacts.nullable(),
});
export type Facts = z.infer<typeof Facts>;

export async function spaceOf(path: string): Promise<{ total: number; available: number }> {
  const { blocks, bavail, bsize } = await statfs(path);
  return { total: Math.round((blocks * bsize) / 1024), available: Math.round((bavail * bsize) / 1024) };
}

/** Programs that machines need and that cannot be executed. */
export const missingPrograms = (): string[] =>
  MACHINE_PACKAGES.map(({ binary }) => binary).filter(
    (program) => !isInstalled(program, PLAIN_ENVIRONMENT.PATH.split(':')),
  );

/** Memory of this host, MiB. */
export async function hostMemory(): Promise<{ total: number; available: number }> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const read = (name: string): number =>
    Math.round(Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1] ?? 0) / 1024);
  return { total: read('MemTotal'), available: read('MemAvailable') };
}

export async function hostFacts(dataDir: string): Promise<Omit<Facts, 'image' | 'guest' | 'network'>> {
  return {
    at: new Date().toISOString(),
    kernel: release(),
    load: loadavg(),
    memoryMiB: await hostMemory(),
    diskKiB: await spaceOf(dataDir),
    missingPrograms: missingPrograms(),
  };
}

/** Layers up to this size are always compared with what was verified: it takes milliseconds. */
const SMALL_LAYER = 16 * 1024 * 1024;
const HASH_DEADLINE_MS = 15_000;

/**
 * The layers of an image as they are on the disk now. `thorough` compares the bytes of large ones too (seconds),
 * until the deadline: what was not read by then is `unread`.
 */
export async function imageFacts(
  images: ImageStore,
  cacheDir: string,
  id: string,
  thorough: boolean,
  deadlineMs: number = HASH_DEADLINE_MS,
): Promise<ImageFacts | null> {
  const manifest = await images.get(id);
  if (manifest === undefined) return null;
  const deadline = AbortSignal.timeout(deadlineMs);
  const layers: ImageFacts['layers'] = [];
  for (const { file, bytes, sha256 } of manifest.layers) {
    const path = join(cacheDir, file);
    const size = await stat(path).then(
      (found) => found.size,
      () => undefined,
    );
    if (size === undefined) layers.push({ file, state: 'missing' });
    else if (size !== bytes) layers.push({ file, state: 'wrong_length' });
    else if (!thorough && bytes > SMALL_LAYER) layers.push({ file, state: 'unread' });
    else {
      const found = await digest(path, deadline).catch(() => undefined);
      const state = found === undefined ? 'unread' : found === sha256 ? 'whole' : 'wrong_bytes';
      layers.push({ file, state });
    }
  }
  return { id, agentVersion: agentVersionOf(manifest), layers };
}

async function digest(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash, { signal });
  return hash.digest('hex');
}
