/** A running machine of the qemu driver: a virtual machine that can be saved. */
import { PolydevError } from '../../../protocol/errors.ts';
import type { Machine } from '../driver.ts';
import { VirtualMachine, type VirtualMachineParts } from '../vm/machine.ts';
import type { State } from './state.ts';

interface QemuMachineParts extends VirtualMachineParts {
  state: State;
  /** Saves the guest beside its disk; throws while the guest runs on. */
  sleep: (signal: AbortSignal) => Promise<void>;
}

export class QemuMachine extends VirtualMachine implements Machine {
  readonly state: State;
  readonly copied: boolean;
  readonly #parts: QemuMachineParts;
  readonly #left: { yet: boolean };

  constructor(parts: QemuMachineParts) {
    const left = { yet: false };
    // A guest that was saved has not ended.
    const ended = parts.ended.then((status) => (left.yet ? new Promise<never>(() => undefined) : status));
    super({ ...parts, ended });
    this.state = parts.state;
    this.copied = parts.state.copied;
    this.#parts = parts;
    this.#left = left;
  }

  async hibernate(signal: AbortSignal): Promise<void> {
    try {
      await this.leave(() => this.#parts.sleep(signal));
    } catch (error) {
      const known = PolydevError.from(error, 'machine_hibernate_failed');
      throw new PolydevError('machine_hibernate_failed', known.message, { cause: error });
    }
  }

  /** Ends the hypervisor of a guest that `save` has saved, and takes back all but its disk. When `save` throws, the guest runs on. */
  async leave(save: () => Promise<void>): Promise<void> {
    const { channel, reclaim, console } = this.#parts;
    this.#left.yet = true;
    try {
      await save();
    } catch (error) {
      this.#left.yet = false;
      throw error;
    }
    channel[Symbol.dispose]();
    await reclaim({ disk: false });
    await console.close();
  }
}
