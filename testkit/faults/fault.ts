/**
 * testkit/faults/: the fault corpus. Each folder holds one fault: fault.ts injects it into a real machine of a real host
 * service, case.json is what the host then knew of it (recorded with RECORD_FAULTS=1). Each must be diagnosed by its name.
 */
import type { HostConfig } from '../../host/config.ts';
import type { DiagnosisName } from '../../protocol/diagnoses.ts';
import type { MachineId } from '../../protocol/ids.ts';
import type { MachineSpec } from '../../protocol/machine.ts';
import type { Disk } from './disk.ts';

/** Where a fault is injected. */
export interface Place {
  readonly id: MachineId;
  readonly config: HostConfig;
  /** The machine's private disk, before its start. */
  readonly disk: Disk;
  /** Runs when the fault's run is over, the last one first. */
  readonly defer: (undo: () => void | Promise<void>) => void;
}

/** What a CLI may print and no evidence may hold: a bearer token, a token of a known name, and a JWT. */
export const CANARIES = {
  bearer: 'canary0bearer0a6',
  named: 'canary0named0b7c',
  jwt: 'canary0jwt0d8e9f',
} as const;

export interface Fault {
  /** As the list of issue 4 and the table of `./polydev test faults` name it; also the name of its folder. */
  readonly name: string;
  /** `none`: the machine must cope with it and become ready. */
  readonly expect: DiagnosisName | 'none';
  readonly spec?: Partial<MachineSpec>;
  /** Absent: namespace. */
  readonly driver?: 'qemu';
  /** Another host service than the one that all faults share: what is different about it, before it starts. */
  readonly host?: (config: HostConfig, defer: Place['defer']) => Promise<Partial<HostConfig>>;
  /** Before the machine is asked for. */
  readonly before?: (place: Place) => Promise<void>;
  /** When its guest runs, whatever it has done by then; the boot is not followed. What is wrong is asked for at once. */
  readonly started?: (place: Place) => Promise<void>;
  /** Once it is ready. */
  readonly after?: (place: Place) => Promise<void>;
  /** Then also starts the genuine CLI's login. */
  readonly login?: boolean;
  /** It changes mounts: only run where nobody else sees them. */
  readonly ownMounts?: boolean;
}
