/** What is known of one machine while its host service runs, and what outlives that. */
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import type { HostMachine } from '../../protocol/host.ts';
import { ImageId } from '../../protocol/ids.ts';
import { DEFAULT_DISK_MIB, ExitReport, MachineSpec, type Stamp } from '../../protocol/machine.ts';
import type { Machine } from '../drivers/driver.ts';

export interface Entry {
  spec: MachineSpec;
  image: ImageId;
  state: HostMachine['state'];
  address: string | null;
  stamps: readonly Stamp[];
  exit: ExitReport | null;
  /** It began as a copy of another one. */
  copied: boolean;
  machine: Machine | undefined;
  /** We are ending it: its exit is no surprise. */
  ending: boolean;
  /** Ends a start that is under way. */
  starting: AbortController | undefined;
  /** What the guest wrote of itself was read from its disk since its last start. */
  journalRead: boolean;
  /** Open channels to the guest. */
  channels: Set<Duplex>;
  /** Resolves at the next exit. */
  ended: PromiseWithResolvers<ExitReport>;
}

/** `record.json` in a machine's folder. */
export const MachineRecord = z.object({ spec: MachineSpec, image: ImageId, exit: ExitReport.nullable() });

export const diskMiBOf = (spec: MachineSpec): number => spec.limits.diskMiB ?? DEFAULT_DISK_MIB[spec.kind];

export function newEntry(spec: MachineSpec, image: ImageId): Entry {
  return {
    spec,
    image,
    state: 'stopped',
    address: null,
    stamps: [],
    exit: null,
    copied: false,
    machine: undefined,
    ending: false,
    starting: undefined,
    journalRead: false,
    channels: new Set(),
    ended: Promise.withResolvers(),
  };
}
