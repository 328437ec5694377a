/** A running virtual machine, whatever hypervisor runs it. */
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId, MachineId } from '../../../protocol/ids.ts';
import {
  AGENT_PORT,
  type ExitReport,
  type MachineSpec,
  POWER_PORT,
  type Stamp,
} from '../../../protocol/machine.ts';
import { readConsole } from '../../machines/console.ts';
import { oomKilled } from '../../system/cgroups.ts';
import { type ProcessIdentity, runs, waitGone } from '../../system/processes.ts';
import type { WaitStatus } from '../../system/syscalls.ts';
import type { Machine } from '../driver.ts';

/** What a driver has to its guest. */
export interface Channel extends Disposable {
  /** Throws `machine_unreachable`. */
  dial(port: number, signal: AbortSignal): Promise<Duplex>;
}

/** What is kept of the guest's output and the hypervisor's own. */
export interface Consoles {
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface VirtualMachineParts {
  spec: MachineSpec;
  image: ImageId;
  address: string;
  stamps: Stamp[];
  /** The hypervisor. */
  process: ProcessIdentity;
  ended: Promise<WaitStatus>;
  console: Consoles;
  consoleFolder: string;
  channel: Channel;
  cgroup: string;
  /** Of the driver: how many times longer the guest may take to end. */
  slowdown?: number;
  reclaim: (options: { disk: boolean }) => Promise<void>;
}

/** What a guest gets to end by itself, its disk written. */
const STOP_GRACE_MS = 15_000;

export class VirtualMachine implements Machine {
  readonly id: MachineId;
  readonly spec: MachineSpec;
  readonly image: ImageId;
  readonly address: string;
  readonly stamps: readonly Stamp[];
  readonly exited: Promise<ExitReport>;
  readonly #parts: VirtualMachineParts;

  constructor(parts: VirtualMachineParts) {
    this.#parts = parts;
    this.id = parts.spec.id;
    this.spec = parts.spec;
    this.image = parts.image;
    this.address = parts.address;
    this.stamps = parts.stamps;
    this.exited = parts.ended.then((status) => {
      parts.channel[Symbol.dispose]();
      return { at: new Date().toISOString(), ...status, oomKilled: oomKilled(parts.cgroup) };
    });
  }

  get running(): boolean {
    return runs(this.#parts.process);
  }

  async dial(port: number, signal: AbortSignal): Promise<Duplex> {
    if (port !== AGENT_PORT) {
      throw new PolydevError(
        'machine_unreachable',
        `this driver has a channel to port ${AGENT_PORT} only, not ${port}`,
      );
    }
    return this.#parts.channel.dial(port, signal);
  }

  async console(): Promise<string> {
    await this.#parts.console.flush();
    return readConsole(this.#parts.consoleFolder);
  }

  /** Asks the guest to end; one that does not react is ended. */
  async stop(_signal: AbortSignal): Promise<ExitReport> {
    const graceMs = STOP_GRACE_MS * (this.#parts.slowdown ?? 1);
    try {
      const stream = await this.#parts.channel.dial(POWER_PORT, AbortSignal.timeout(graceMs));
      stream.on('error', () => undefined).resume();
      await waitGone(this.#parts.process, graceMs);
    } catch {
      // Ended already, or it does not listen: reclaiming ends it.
    }
    return this.#end({ disk: false });
  }

  async #end(options: { disk: boolean }): Promise<ExitReport> {
    // Reclaiming removes the cgroup that says whether memory ran out: ask before.
    const last = this.running ? undefined : await this.exited;
    this.#parts.channel[Symbol.dispose]();
    await this.#parts.reclaim(options);
    await this.#parts.console.close();
    return last ?? (await this.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end({ disk: true });
  }
}
