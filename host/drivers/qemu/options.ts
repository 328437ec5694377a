/** What the driver is made of, and where things of a machine are. */
import type { ImageId } from '../../../protocol/ids.ts';
import type { Network } from '../../network/network.ts';
import type { Leases } from '../../system/leases.ts';
import type { Accelerator } from './args.ts';

/** What the driver needs of the image store. */
export interface DiskImages {
  current(): Promise<{ id: ImageId } | undefined>;
  /** Files of the layers, top first. Throws `image_missing`. */
  layerFiles(id: string): Promise<string[]>;
  /** Kernel and initramfs; undefined when they were not made. */
  vmParts(): Promise<{ kernel: string; initrd: string } | undefined>;
}

export interface QemuDriverOptions {
  instance: string;
  accelerator: Accelerator;
  /** How many times slower than hardware this computer's virtualization is; 1 but where it is emulated. */
  slowdown: number;
  /** `<machinesFolder>/<id>` holds what survives a stop: disk, console, state. */
  machinesFolder: string;
  runFolder: string;
  images: DiskImages;
  network: Network;
  /** Claims on ranges of host ids, shared by all instances of this host. */
  idLeases: Leases;
}

/** Paths of one machine. */
export interface Place {
  folder: string;
  runFolder: string;
  cgroup: string;
  agent: string;
  qmp: string;
  console: string;
  /** What the hypervisor itself prints. */
  log: string;
}
