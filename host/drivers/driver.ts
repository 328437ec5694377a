/**
 * host/drivers/: what runs machines. One folder per driver, the same contract for all; a driver never imports another.
 */
import type { Duplex } from 'node:stream';
import type { DriverName } from '../../protocol/host.ts';
import type { ImageId, MachineId } from '../../protocol/ids.ts';
import type { ExitReport, MachineSpec, Stamp } from '../../protocol/machine.ts';
import type { GuestFacts } from '../evidence/facts.ts';

/** What a driver could do when it tried. */
export interface DriverReport {
  driver: DriverName;
  ok: boolean;
  /** What does not work, by name, for example "user namespace: ...". Empty when ok. */
  problems: string[];
  /** How long the trial took. */
  ms: number;
}

/** How a driver puts a machine to sleep. `disk`: the guest's memory is in files and nothing of it runs. `frozen`: its processes stay, without time. */
export type Sleep = 'disk' | 'frozen';

export interface Driver extends AsyncDisposable {
  readonly name: DriverName;
  /** How its machines hibernate; null: they cannot. */
  readonly sleep: Sleep | null;
  /** How many times longer than on the bare computer work in its guests may take: what deadlines are multiplied by. */
  readonly slowdown: number;
  /** Runs the smallest guest and reports; never trusts that a device or program is there. Deadline 5 s. */
  probe(signal: AbortSignal): Promise<DriverReport>;
  /**
   * Starts a machine, or returns the running one of that id. A private disk left by `Machine.stop` is used again.
   * Throws PolydevError; nothing but the disk and the console is left behind then.
   */
  start(spec: MachineSpec, signal: AbortSignal): Promise<Machine>;
  /** The machine of that id if its guest still runs, after a restart of the host service. */
  adopt(id: MachineId): Promise<Machine | undefined>;
  /**
   * Continues a hibernated guest where it was, with the clock and the entropy of now. Throws `not_found` when none waits under that
   * id, `machine_resume_failed` otherwise; the private disk is kept then, and `start` boots from it.
   */
  resume?(spec: MachineSpec, signal: AbortSignal): Promise<Machine>;
  /** Whether a hibernated guest waits under that id; it may outlive a restart of the host service. */
  asleep?(id: MachineId): Promise<boolean>;
  /**
   * Boots a machine like this one that is nobody's (its id and its token are new and known to nobody), saves it at rest and ends it.
   * Absent: the driver cannot. Throws PolydevError; nothing is left behind then.
   */
  makeTemplate?(like: MachineSpec, signal: AbortSignal): Promise<Template>;
  /** What the saved memory of a template takes of the host's disk, MiB at most; absent: nothing of note. */
  templateDiskMiB?(like: MachineSpec): number;
  /** Takes back everything a machine holds, at whatever point its start stopped; `disk`: its private disk too. Idempotent. */
  reclaim(id: MachineId, options: { disk: boolean }): Promise<void>;
  /** Its own files of evidence, bounded in size and without secrets: logs and what it asked its runtime for. */
  evidence?(id: MachineId): Promise<Record<string, string>>;
  /**
   * What a guest that cannot be asked wrote of itself (`journal.log`), from its private disk: redacted, bounded. `ended`: nothing of
   * it runs. Throws an Error that says why there is nothing to read.
   */
  journal?(id: MachineId, ended: boolean): Promise<string>;
  /** What the kernel says of a machine's limits; null when nothing of it is left. */
  inspect?(spec: MachineSpec): Promise<GuestFacts | null>;
  /** Takes back what belongs to no machine of `keep`: left by a host service that was killed in the middle of something. */
  reclaimOrphans(keep: ReadonlySet<string>): Promise<void>;
}

/** A guest that was saved at rest, and of which machines are copies. It ends with its driver, and its copies do not end with it. */
export interface Template extends AsyncDisposable {
  /**
   * Starts a machine as a copy that has an identity of its own already: names, address, token, time, random numbers. Throws
   * PolydevError; nothing but the console is left behind then.
   */
  start(spec: MachineSpec, signal: AbortSignal): Promise<Machine>;
}

export interface Machine extends AsyncDisposable {
  readonly id: MachineId;
  readonly spec: MachineSpec;
  readonly image: ImageId;
  readonly address: string | null;
  /** It began as a copy of a template. */
  readonly copied?: boolean;
  /** The checkpoints the driver sees itself. */
  readonly stamps: readonly Stamp[];
  /** A channel to a port of the guest. Throws `machine_unreachable`. */
  dial(port: number, signal: AbortSignal): Promise<Duplex>;
  /** Everything the guest printed since its start, bounded: the beginning and the end. */
  console(): Promise<string>;
  /** Resolves when the guest has ended, whoever ended it. Never rejects. */
  readonly exited: Promise<ExitReport>;
  /**
   * Puts the guest to sleep and takes back what its driver can; the machine's `exited` stays pending for ever, it is of no use afterwards.
   * Throws `machine_hibernate_failed`; the guest runs on then.
   */
  hibernate?(signal: AbortSignal): Promise<void>;
  /** Asks the guest to end, ends it, and takes back everything but its private disk. */
  stop(signal: AbortSignal): Promise<ExitReport>;
}
