/** What the driver is made of, and where things of a machine are. */
import { join } from 'node:path';
import type { ImageId, MachineId } from '../../../protocol/ids.ts';
import type { Network } from '../../network/network.ts';
import { cgroupOfInstance } from '../../system/cgroups.ts';
import type { Leases } from '../../system/leases.ts';
import { IN_JAIL } from './jail.ts';

/** What the driver needs of the image store. */
interface MicroVmImages {
  current(): Promise<{ id: ImageId } | undefined>;
  /** Files of the layers, top first. Throws `image_missing`. */
  layerFiles(id: string): Promise<string[]>;
  /** Uncompressed kernel and initramfs; undefined when they were not made. */
  vmParts(): Promise<{ kernel: string; initrd: string } | undefined>;
}

export interface FirecrackerDriverOptions {
  instance: string;
  /** Paths of the programs; default: where one usually puts them. */
  firecracker: string | undefined;
  jailer: string | undefined;
  /** How many times slower than hardware this computer's virtualization is; 1 but where it is emulated. */
  slowdown: number;
  /** `<machinesFolder>/<id>` holds what survives a stop, and the jail: devices and programs must be allowed there. */
  machinesFolder: string;
  runFolder: string;
  images: MicroVmImages;
  network: Network;
  /** Claims on ranges of host ids, shared by all instances of this host. */
  idLeases: Leases;
}

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

export function placeOf(
  options: Pick<FirecrackerDriverOptions, 'machinesFolder' | 'instance' | 'runFolder'>,
  id: MachineId,
): Place {
  const { machinesFolder, instance, runFolder: all } = options;
  const folder = join(machinesFolder, id);
  const runFolder = join(all, 'm', id);
  const pipe = (name: string, inside: string) => ({
    inside,
    pipe: join(folder, `${name}.pipe`),
    kept: join(folder, name),
  });
  return {
    folder,
    runFolder,
    cgroup: `${cgroupOfInstance(instance)}/${id}`,
    jailBase: join(folder, 'jail'),
    console: join(runFolder, 'console'),
    pipes: [pipe('hypervisor-log', IN_JAIL.log), pipe('hypervisor-metrics', IN_JAIL.metrics)],
  };
}
