/**
 * A template: a guest that booted, and was saved while nobody used it. Its memory is a sealed file without a name, which every copy
 * maps and changes for itself alone; its devices and its disk are files in a folder of its own. It ends with the host service: a
 * folder that one left behind is no machine's and is removed at the next start.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageId } from '../../../protocol/ids.ts';
import { diskPath } from '../vm/disk.ts';
import { giveAway } from '../vm/template.ts';
import type { Maker } from './state.ts';

const devicesPath = (folder: string): string => join(folder, 'devices');
const templateDisk = (folder: string): string => join(folder, 'template.img');

/** A guest that was saved, as the driver knows it. */
export interface Saved {
  folder: string;
  image: ImageId;
  /** Descriptor of its sealed memory. */
  memory: number;
  /** Bytes of its disk. */
  diskBytes: number;
  /** Of its channel, and of its agent. */
  mark: string;
  token: string;
  maker: Maker;
}

export const pathsOf = (folder: string): { devices: string; disk: string } => ({
  devices: devicesPath(folder),
  disk: templateDisk(folder),
});

/** Its disk is nobody's now, and every hypervisor may read it. */
export async function giveDiskAway(folder: string): Promise<void> {
  const disk = templateDisk(folder);
  await rename(diskPath(folder), disk);
  giveAway(disk);
}
