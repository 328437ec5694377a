/** From a disk and a network to a running guest: its jail, its hypervisor, and the calls that boot or wake it. */
import { join } from 'node:path';
import type { Limits, MachineSpec } from '../../../protocol/machine.ts';
import type { Attachment } from '../../network/network.ts';
import { type CgroupLimits, cgroupVersion } from '../../system/cgroups.ts';
import { guestArguments } from '../vm/arguments.ts';
import { configDrive, guestConfig, hostnameOf } from '../vm/config.ts';
import { diskPath } from '../vm/disk.ts';
import { bootCalls, LOAD, RESUME, START } from './args.ts';
import type { Binaries } from './binaries.ts';
import { CHANNEL_UNITS, LISTEN } from './guest.ts';
import { type Hypervisor, startHypervisor, whileItRuns } from './hypervisor.ts';
import { fillJail, IN_JAIL, jailId } from './jail.ts';

const MIB = 1024 * 1024;
/** Firecracker's own memory beside the guest's. */
const OVERHEAD_MIB = 128;
/** Threads: one per processor and a few. */
const MOST_TASKS = 64;
/** Saving and loading moves the guest's whole memory. */
export const SNAPSHOT_TIMEOUT_MS = 60_000;

/** Where a machine's things are on the host. */
export interface Place {
  folder: string;
  runFolder: string;
  cgroup: string;
  jailBase: string;
  console: string;
  /** Named pipes for what Firecracker says of itself, and the folders in which the host keeps the end of it. */
  pipes: readonly { inside: string; pipe: string; kept: string }[];
}

export interface Launch {
  spec: MachineSpec;
  /** Uncompressed kernel, initramfs and read-only layers, top first. */
  kernel: string;
  initrd: string;
  layers: readonly string[];
  place: Place;
  /** Root of the jail. */
  root: string;
  owner: number;
  attachment: Attachment & { tap: string };
  binaries: Binaries;
  /** Descriptor for the guest's serial port. */
  output: number;
  /** Folder with the memory and devices of a guest that wakes; undefined for one that boots. */
  asleep: string | undefined;
  slowdown: number;
  /** Connects the guest's link, once Firecracker has opened it. */
  connect: () => Promise<void>;
}

/** What a machine may take of its host. `saving`: its memory goes to a file, which counts as memory too where that is one in memory. */
export const cgroupLimits = ({ memoryMiB, cpus }: Limits, saving: boolean): CgroupLimits => ({
  memoryBytes: (memoryMiB * (saving ? 2 : 1) + OVERHEAD_MIB) * MIB,
  cpus,
  pids: MOST_TASKS,
});

/** Resolves when the guest runs. Throws PolydevError; the jail and what runs in it are the caller's to reclaim then. */
export async function launchGuest(launch: Launch, signal: AbortSignal): Promise<Hypervisor> {
  const { spec, layers, place, root, owner, attachment, asleep, slowdown } = launch;
  const { limits, kind } = spec;
  const config = guestConfig(spec, { attachment, listen: LISTEN, slowdown });
  const snapshot = asleep === undefined ? [] : [IN_JAIL.state, IN_JAIL.memory];
  using mounts = await fillJail(root, owner, {
    shared: {
      [IN_JAIL.kernel]: launch.kernel,
      [IN_JAIL.initrd]: launch.initrd,
      ...Object.fromEntries(layers.map((file, index) => [IN_JAIL.layer(index), file])),
    },
    owned: {
      [IN_JAIL.disk]: diskPath(place.folder),
      ...Object.fromEntries(place.pipes.map(({ inside, pipe }) => [inside, pipe])),
      ...Object.fromEntries(snapshot.map((name) => [name, join(asleep ?? '', name)])),
    },
    made: { [IN_JAIL.config]: configDrive(config, spec, attachment, CHANNEL_UNITS) },
  });
  const plan = {
    ...launch.binaries,
    id: jailId(spec.id),
    uid: owner,
    base: place.jailBase,
    netns: attachment.namespace,
    cgroup: place.cgroup,
    cgroupVersion: cgroupVersion(),
    limits: cgroupLimits(limits, false),
  };
  const hypervisor = await startHypervisor({ plan, root, output: launch.output, slowdown }, signal);
  const { api } = hypervisor;
  const prepare = async (): Promise<void> => {
    if (asleep === undefined) {
      const words = guestArguments({ layers: layers.length, kind, hostname: hostnameOf(spec.id) });
      const { mac, tap } = attachment;
      const guest = { limits, kind, layers: layers.length, bootArguments: words, mac, tap };
      for (const call of bootCalls(guest)) await api.call(call);
    } else {
      await api.call(LOAD, SNAPSHOT_TIMEOUT_MS);
    }
    await launch.connect();
    await api.call(asleep === undefined ? START : RESUME);
  };
  await whileItRuns(hypervisor, prepare());
  // It has its own view of these.
  mounts[Symbol.dispose]();
  return hypervisor;
}
