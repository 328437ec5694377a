/**
 * A template: a guest that booted, and was saved while nobody used it. Its memory is a sealed file without a name, which every copy
 * maps and changes for itself alone; its devices and its disk are files in a folder of its own. It ends with the host service: a
 * folder that one left behind is no machine's and is removed at the next start.
 */
import { chmodSync, chownSync, closeSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId } from '../../../protocol/ids.ts';
import type { MachineSpec } from '../../../protocol/machine.ts';
import type { Machine, Template } from '../driver.ts';
import { diskPath } from '../vm/disk.ts';
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

export class QemuTemplate implements Template {
  readonly #saved: Saved;
  readonly #copy: (spec: MachineSpec, signal: AbortSignal) => Promise<Machine>;
  readonly #release: () => Promise<void>;
  #gone = false;

  constructor(
    saved: Saved,
    copy: (spec: MachineSpec, signal: AbortSignal) => Promise<Machine>,
    release: () => Promise<void>,
  ) {
    this.#saved = saved;
    this.#copy = copy;
    this.#release = release;
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    if (this.#gone) throw new PolydevError('machine_start_failed', 'the template was removed');
    return this.#copy(spec, signal);
  }

  /** Its copies keep what they need of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#gone) return;
    this.#gone = true;
    closeSync(this.#saved.memory);
    await this.#release();
  }
}

export const pathsOf = (folder: string): { devices: string; disk: string } => ({
  devices: devicesPath(folder),
  disk: templateDisk(folder),
});

/** Its disk is nobody's now, and every hypervisor may read it. */
export async function giveDiskAway(folder: string): Promise<void> {
  const disk = templateDisk(folder);
  await rename(diskPath(folder), disk);
  chownSync(disk, 0, 0);
  chmodSync(disk, 0o444);
}
