/** A running machine of the firecracker driver: a virtual machine that can sleep. */
import type { Machine } from '../driver.ts';
import { VirtualMachine, type VirtualMachineParts } from '../vm/machine.ts';

export class FirecrackerMachine extends VirtualMachine implements Machine {
  readonly copied: boolean;
  readonly #sleep: (signal: AbortSignal) => Promise<void>;

  /** `sleep`: saves the guest and takes back what it held; throws `machine_hibernate_failed` while the guest runs on. */
  constructor(
    parts: VirtualMachineParts & { copied: boolean },
    sleep: (signal: AbortSignal) => Promise<void>,
  ) {
    super(parts);
    this.copied = parts.copied;
    this.#sleep = sleep;
  }

  hibernate(signal: AbortSignal): Promise<void> {
    return this.#sleep(signal);
  }
}
