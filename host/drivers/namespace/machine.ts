/** A running machine of the namespace driver. */
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId, MachineId } from '../../../protocol/ids.ts';
import type { ExitReport, MachineSpec, Stamp } from '../../../protocol/machine.ts';
import { type Console, readConsole } from '../../machines/console.ts';
import { freezeCgroup, oomKilled, reclaimMemory } from '../../system/cgroups.ts';
import type { ExitWatch } from '../../system/exit.ts';
import { type ProcessIdentity, runs } from '../../system/processes.ts';
import type { Machine } from '../driver.ts';
import { dialChannel } from './channel.ts';
import { askToEnd } from './container.ts';

export interface NamespaceMachineParts {
  spec: MachineSpec;
  image: ImageId;
  address: string;
  stamps: Stamp[];
  process: ProcessIdentity;
  exits: ExitWatch;
  console: Console;
  consoleFolder: string;
  channelPath: string;
  cgroup: string;
  reclaim: (options: { disk: boolean }) => Promise<void>;
}

/** What a person's shells get to end by themselves. */
const STOP_GRACE_MS = 3000;

export class NamespaceMachine implements Machine {
  readonly id: MachineId;
  readonly spec: MachineSpec;
  readonly image: ImageId;
  readonly address: string;
  readonly stamps: readonly Stamp[];
  readonly exited: Promise<ExitReport>;
  readonly #parts: NamespaceMachineParts;

  constructor(parts: NamespaceMachineParts) {
    this.#parts = parts;
    this.id = parts.spec.id;
    this.spec = parts.spec;
    this.image = parts.image;
    this.address = parts.address;
    this.stamps = parts.stamps;
    this.exited = parts.exits.watch(parts.process).then((status) => ({
      at: new Date().toISOString(),
      ...status,
      oomKilled: oomKilled(parts.cgroup),
    }));
  }

  get running(): boolean {
    return runs(this.#parts.process);
  }

  dial(port: number, signal: AbortSignal): Promise<Duplex> {
    return dialChannel(this.#parts.channelPath, port, signal);
  }

  async console(): Promise<string> {
    await this.#parts.console.flush();
    return readConsole(this.#parts.consoleFolder);
  }

  async hibernate(signal: AbortSignal): Promise<void> {
    const { cgroup } = this.#parts;
    try {
      await freezeCgroup(cgroup, signal);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new PolydevError('machine_hibernate_failed', `machine ${this.id}: ${why}`, { cause: error });
    }
    await reclaimMemory(cgroup);
  }

  async stop(_signal: AbortSignal): Promise<ExitReport> {
    await askToEnd(this.#parts.process, STOP_GRACE_MS);
    return this.#end({ disk: false });
  }

  async #end(options: { disk: boolean }): Promise<ExitReport> {
    // Reclaiming removes the cgroup that says whether memory ran out: ask before.
    const last = this.running ? undefined : await this.exited;
    await this.#parts.reclaim(options);
    await this.#parts.console.close();
    return last ?? (await this.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end({ disk: true });
  }
}
