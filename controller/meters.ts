/**
 * What this process counts as it happens, for Prometheus. What the database can count, `api/metrics.ts` asks of it.
 *
 * Labels are closed sets (drivers, kinds, checkpoints, diagnosis names, codes): never an id or a person.
 */
import { Counter, Histogram, Registry } from 'prom-client';
import { DiagnosisName } from '../protocol/diagnoses.ts';
import { DriverName } from '../protocol/host.ts';
import { type Checkpoint, MachineKind } from '../protocol/machine.ts';

/**
 * How a machine or a session came through the end of a process that worked on it.
 *
 * `session_resumed`: its workflow went on in this controller. `session_given_up`: it could not be taken up and ended as
 * `controller_restarted`. `start_given_up`: nobody follows a machine's start any more. `machine_lost`: its host lost it or
 * found it ended. `machine_unowned`: a host had a machine of nobody's, and it was destroyed.
 */
const RECOVERIES = [
  'session_resumed',
  'session_given_up',
  'start_given_up',
  'machine_lost',
  'machine_unowned',
] as const;
export type Recovery = (typeof RECOVERIES)[number];

export interface Meters {
  /** Everything below; `api/metrics.ts` adds the rest. */
  readonly registry: Registry;
  checkpoint(reached: {
    driver: string | null;
    kind: MachineKind;
    checkpoint: Checkpoint;
    durationMs: number;
  }): void;
  /** A failure was given its name: of a start, a boot or a login. */
  diagnosed(failure: { name: DiagnosisName; driver: string | null; kind: MachineKind }): void;
  /** A ready machine began not to work, by the name that it was given. */
  degraded(trouble: { name: DiagnosisName; kind: MachineKind }): void;
  recovered(what: Recovery, count?: number): void;
}

/** From the request of a start, in seconds: a namespace takes less than one, software emulation up to minutes. */
const CHECKPOINT_BUCKETS = [0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 240];

/** Fresh counters, all at nothing. */
export function createMeters(): Meters {
  const registry = new Registry();
  const registers = [registry];
  const checkpoints = new Histogram({
    name: 'polydev_machine_checkpoint_seconds',
    help: 'From the request of a machine to each checkpoint of its boot',
    labelNames: ['driver', 'kind', 'checkpoint'],
    buckets: CHECKPOINT_BUCKETS,
    registers,
  });
  const failures = new Counter({
    name: 'polydev_machine_failures_total',
    help: 'Failures of machines by the name of their diagnosis, since the start of this process',
    labelNames: ['diagnosis', 'driver', 'kind'],
    registers,
  });
  const degradations = new Counter({
    name: 'polydev_machine_degradations_total',
    help: 'Ready machines that began not to work, by the name of the diagnosis, since the start of this process',
    labelNames: ['diagnosis', 'kind'],
    registers,
  });
  const recoveries = new Counter({
    name: 'polydev_recoveries_total',
    help: 'What was left by a process that ended, and what became of it, since the start of this process',
    labelNames: ['what'],
    registers,
  });
  // From the start: a counter that appears with its first count has, for Prometheus, never increased.
  for (const what of RECOVERIES) recoveries.inc({ what }, 0);
  for (const kind of MachineKind.options) {
    for (const diagnosis of DiagnosisName.options) {
      degradations.inc({ diagnosis, kind }, 0);
      for (const driver of [...DriverName.options, 'unknown']) failures.inc({ diagnosis, driver, kind }, 0);
    }
  }
  return {
    registry,
    checkpoint: ({ driver, kind, checkpoint, durationMs }) =>
      checkpoints.observe({ driver: driver ?? 'unknown', kind, checkpoint }, durationMs / 1000),
    diagnosed: ({ name, driver, kind }) =>
      failures.inc({ diagnosis: name, driver: driver ?? 'unknown', kind }),
    degraded: ({ name, kind }) => degradations.inc({ diagnosis: name, kind }),
    recovered: (what, count = 1) => recoveries.inc({ what }, count),
  };
}
