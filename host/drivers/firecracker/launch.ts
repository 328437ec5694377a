/** From a disk and a network to a running guest: its jail, its hypervisor, and the calls that boot or wake it. */
import { join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import type { GuestConfig, Limits, MachineSpec } from '../../../protocol/machine.ts';
import { Console } from '../../machines/console.ts';
import type { Attachment } from '../../network/network.ts';
import { type CgroupLimits, cgroupVersion } from '../../system/cgroups.ts';
import { guestArguments } from '../vm/arguments.ts';
import { configDrive, guestConfig, hostnameOf } from '../vm/config.ts';
import { diskPath } from '../vm/disk.ts';
import { bootCalls, LOAD, loadCopy, RESUME, START } from './args.ts';
import type { Binaries } from './binaries.ts';
import { CHANNEL_UNITS, LISTEN } from './guest.ts';
import { type Hypervisor, startHypervisor, whileItRuns } from './hypervisor.ts';
import { fillJail, IN_JAIL, jailId } from './jail.ts';
import type { Place } from './options.ts';

const MIB = 1024 * 1024;
/** Firecracker's own memory beside the guest's. */
const OVERHEAD_MIB = 128;
/** Threads: one per processor and a few. */
const MOST_TASKS = 64;
/** Saving and loading moves the guest's whole memory. */
export const SNAPSHOT_TIMEOUT_MS = 60_000;

/** How a guest begins: it boots, or goes on with the memory and devices in `folder`: its own, or those of a template. */
export type Beginning = { how: 'boots' } | { how: 'wakes' | 'copies'; folder: string };

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
  begins: Beginning;
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

/** What a guest is told of itself. */
export const configOf = ({
  spec,
  attachment,
  slowdown,
}: Pick<Launch, 'spec' | 'attachment' | 'slowdown'>): GuestConfig =>
  guestConfig(spec, { attachment, listen: LISTEN, slowdown });

/** Resolves when the guest runs. Throws PolydevError; the jail and what runs in it are the caller's to reclaim then. */
export async function launchGuest(launch: Launch, signal: AbortSignal): Promise<Hypervisor> {
  const { spec, layers, place, root, owner, attachment, begins, slowdown } = launch;
  const { limits, kind } = spec;
  const config = configOf(launch);
  using mounts = await fillJail(root, owner, {
    shared: {
      [IN_JAIL.kernel]: launch.kernel,
      [IN_JAIL.initrd]: launch.initrd,
      ...Object.fromEntries(layers.map((file, index) => [IN_JAIL.layer(index), file])),
      ...(begins.how === 'copies'
        ? {
            [IN_JAIL.templateState]: join(begins.folder, IN_JAIL.state),
            [IN_JAIL.templateMemory]: join(begins.folder, IN_JAIL.memory),
          }
        : {}),
    },
    owned: {
      [IN_JAIL.disk]: diskPath(place.folder),
      ...Object.fromEntries(place.pipes.map(({ inside, pipe }) => [inside, pipe])),
      ...(begins.how === 'wakes'
        ? Object.fromEntries([IN_JAIL.state, IN_JAIL.memory].map((name) => [name, join(begins.folder, name)]))
        : {}),
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
    const { mac, tap } = attachment;
    if (begins.how === 'boots') {
      const words = guestArguments({ layers: layers.length, kind, hostname: hostnameOf(spec.id) });
      const guest = { limits, kind, layers: layers.length, bootArguments: words, mac, tap };
      for (const call of bootCalls(guest)) await api.call(call);
    } else {
      await api.call(begins.how === 'wakes' ? LOAD : loadCopy(tap), SNAPSHOT_TIMEOUT_MS);
    }
    await launch.connect();
    await api.call(begins.how === 'boots' ? START : RESUME);
  };
  await whileItRuns(hypervisor, prepare());
  // It has its own view of these.
  mounts[Symbol.dispose]();
  return hypervisor;
}

/** A failed start with the last lines of the console: they say more than how the hypervisor ended. */
export async function withLastLines(
  thrown: unknown,
  folder: string,
  console: Console,
): Promise<PolydevError> {
  const error = PolydevError.from(thrown, 'machine_start_failed');
  await console.flush();
  const lines = (await Console.lastLines(folder, 20)).filter((line) => line !== '');
  const code = error.code === 'machine_unreachable' ? 'machine_start_failed' : error.code;
  const why = code === 'machine_start_failed' ? lines.at(-1) : undefined;
  return new PolydevError(code, why === undefined ? error.message : `${error.message}: ${why}`, {
    cause: thrown,
    lines: [...error.lines, ...lines],
  });
}
