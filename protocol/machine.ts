/** A machine: what is asked of a host, what the guest is told, and the boot checklist. */
import { z } from 'zod';
import { ImageId, MachineId } from './ids.ts';

export const MachineKind = z.enum(['browser', 'cli']);
export type MachineKind = z.infer<typeof MachineKind>;

/**
 * Which world a machine's network shows. `internet` reaches public addresses and never the test identity
 * provider; `test` reaches the test identity provider and nothing else. Fixed for the life of the machine.
 */
export const Realm = z.enum(['internet', 'test']);
export type Realm = z.infer<typeof Realm>;

export const Limits = z.strictObject({
  /** Whole and fractional cores. */
  cpus: z.number().positive().max(64),
  memoryMiB: z.number().int().min(64).max(262_144),
  /** Processes and threads. */
  pids: z.number().int().min(32).max(32_768),
  /** Size of the private disk when it is made. Absent: DEFAULT_DISK_MIB. */
  diskMiB: z.number().int().min(16).max(1_048_576).optional(),
});
export type Limits = z.infer<typeof Limits>;

/** Space is taken on the host only as the guest writes. */
export const DEFAULT_DISK_MIB: Readonly<Record<MachineKind, number>> = { browser: 2048, cli: 8192 };

export const Display = z.strictObject({
  width: z.number().int().min(320).max(3840),
  height: z.number().int().min(240).max(2160),
});
export type Display = z.infer<typeof Display>;

/** What the controller asks of a host. Everything a driver needs and nothing secret. */
export const MachineSpec = z.strictObject({
  id: MachineId,
  kind: MachineKind,
  realm: Realm,
  /** Absent: the host's current image. */
  image: ImageId.optional(),
  limits: Limits,
  display: Display,
  /** SHA-256 of the machine's agent token, hex. The token itself never leaves the controller but in requests. */
  agentTokenHash: z.string().regex(/^[0-9a-f]{64}$/),
});
export type MachineSpec = z.infer<typeof MachineSpec>;

/** What the guest reads from its config drive at /run/polydev/config.json; written by the host, read-only. */
export const GuestConfig = z.strictObject({
  version: z.literal(1),
  machineId: MachineId,
  kind: MachineKind,
  realm: Realm,
  hostname: z.string(),
  display: Display,
  agentTokenHash: z.string(),
  /** Resolvers for /etc/resolv.conf. Absent: the guest's DHCP client decides. */
  dns: z.array(z.string()).optional(),
  /** Extra certificate authorities, PEM. Only test machines have one. */
  ca: z.string().optional(),
  /** How many times longer than usual the agent waits for programs; absent: 1. */
  slowdown: z.number().min(1).optional(),
  /**
   * Where the agent listens: an inherited descriptor (namespace driver), a serial port by its name with the mark of
   * protocol/channel/ (qemu driver), a unix socket that systemd connects to the host (firecracker driver), or the TCP port.
   */
  listen: z.union([
    z.strictObject({ fd: z.number().int() }),
    z.strictObject({ serial: z.string(), mark: z.string().regex(/^[0-9a-f]{32}$/) }),
    z.strictObject({ path: z.string().startsWith('/') }),
    z.strictObject({ port: z.number().int() }),
  ]),
});
export type GuestConfig = z.infer<typeof GuestConfig>;

/** The agent's port on every channel that has ports. */
export const AGENT_PORT = 8080;
/** A stream to this port of a virtual machine asks the guest to end by itself; it carries nothing. */
export const POWER_PORT = 1;

/**
 * The boot checklist, in order. `hypervisor`, `kernel` and `init` are stamped by the host, `agent` by whoever reaches it first, the
 * rest by the agent. `kernel`: its first words on a virtual machine's console; where the kernel is the host's it runs already. `init`:
 * the first program runs. A CLI machine has no desktop and no browser.
 */
export const CHECKPOINTS = [
  'hypervisor',
  'kernel',
  'init',
  'agent',
  'desktop',
  'browser',
  'provider',
] as const;
export const Checkpoint = z.enum(CHECKPOINTS);
export type Checkpoint = z.infer<typeof Checkpoint>;

export function checklist(kind: MachineKind): readonly Checkpoint[] {
  return kind === 'browser' ? CHECKPOINTS : CHECKPOINTS.filter((c) => c !== 'desktop' && c !== 'browser');
}

/** What nobody inside a machine can stamp. */
export const BEFORE_INIT: readonly Checkpoint[] = ['hypervisor', 'kernel'];

export const Stamp = z.object({ checkpoint: Checkpoint, at: z.iso.datetime({ precision: 3 }) });
export type Stamp = z.infer<typeof Stamp>;

export const ExitReport = z.object({
  at: z.iso.datetime({ precision: 3 }),
  /** Exit code of the machine's first process, or null when a signal ended it. */
  code: z.number().int().nullable(),
  signal: z.string().nullable(),
  /** True when the kernel's out-of-memory killer struck inside the machine's limits. */
  oomKilled: z.boolean(),
});
export type ExitReport = z.infer<typeof ExitReport>;
