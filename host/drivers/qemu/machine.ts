/** A running machine of the qemu driver: a virtual machine that can sleep. */
import type { Machine } from '../driver.ts';
import { VirtualMachine, type VirtualMachineParts } from '../vm/machine.ts';

export class QemuMachine extends VirtualMachine implements Machine {
  readonly #sleep: (signal: AbortSignal) => Promise<void>;

  /** `sleep`: saves the guest and takes back what it held; throws `machine_hibernate_failed` while the guest runs on. */
  constructor(parts: VirtualMachineParts, sleep: (signal: AbortSignal) => Promise<void>) {
    super(parts);
    this.#sleep = sleep;
  }

  hibernate(signal: AbortSignal): Promise<void> {
    return this.#sleep(signal);
  }
}
