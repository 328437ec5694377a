/**
 * How long a machine may take to each checkpoint of its boot: what boots of its kind took under its driver on its host,
 * with room, and more while the host is busy. Pure: what was measured comes from `store/boot-times.ts`.
 */
import type { Checkpoint } from '../../protocol/machine.ts';
import type { Measured } from '../store/boot-times.ts';

/** A deadline that is this many times the 95th percentile is not passed by chance. */
const ROOM = 4;
/** Fewer boots than this prove nothing. */
const ENOUGH = 5;
/** The least that is given, as a part of what is given when nothing was measured. */
const FLOOR = 0.25;
/** The most, as a multiple of it. */
const CEILING = 4;
/** Never more than this: the reconciler takes a start of 600 s for given up, ms. Chromium in an emulated machine was seen to need 280 s at a load of 12. */
export const LONGEST_BOOT_MS = 580_000;
/** A host on which more than this many processes wait for each processor is not waited for in proportion. */
const MOST_LOAD = 4;

/** Running processes over the last minute, and processors. */
export interface Load {
  readonly one: number;
  readonly cpus: number;
}

/** How much busier than it should be a host is, from 1 to MOST_LOAD. */
const loadFactor = (load: Load | undefined): number =>
  Math.min(MOST_LOAD, Math.max(1, load === undefined ? 1 : load.one / load.cpus));

/** How many times longer than usual an answer from inside a machine may take. */
export const patienceFor = (slowdown: number, load: Load | undefined): number => slowdown * loadFactor(load);

export interface Deadline {
  /** From the request of the start. */
  readonly ms: number;
  /** For people: what it was made from. */
  readonly from: string;
}

export interface DeadlineRules {
  /** What a whole boot may take when nothing is known of the machine's kind, ms. */
  readonly usualMs: number;
  /** Of the driver: what work inside the machine takes longer than usual. */
  readonly slowdown: number;
  readonly measured: ReadonlyMap<Checkpoint, Measured>;
}

const seconds = (ms: number): string => `${Number((ms / 1000).toPrecision(3))} s`;
const short = (value: number): string => String(Number(value.toFixed(1)));

/** max(floor, 4 × p95) × load, at most the ceiling; the usual time × load while too little was measured. */
export function deadlineOf(rules: DeadlineRules, checkpoint: Checkpoint, load: Load | undefined): Deadline {
  const usual = rules.usualMs * rules.slowdown;
  const [floor, ceiling] = [usual * FLOOR, Math.min(LONGEST_BOOT_MS, usual * CEILING)];
  const measured = rules.measured.get(checkpoint);
  const known = measured !== undefined && measured.boots >= ENOUGH;
  const base = known ? Math.max(floor, ROOM * measured.p95Ms) : usual;
  const factor = loadFactor(load);
  const ms = Math.round(Math.min(ceiling, base * factor));
  const parts = [
    known
      ? `${ROOM} × ${seconds(measured.p95Ms)}, the 95th percentile of the last ${measured.boots} boots` +
        (base === floor ? `, at least ${seconds(floor)}` : '')
      : `${seconds(usual)}, the usual time: ${measured?.boots ?? 0} boots were measured, and ${ENOUGH} are needed`,
    ...(load !== undefined && factor > 1
      ? [`× ${short(factor)} for a load of ${short(load.one)} on ${load.cpus} processors`]
      : []),
    ...(ms === ceiling ? [`at most ${seconds(ceiling)}`] : []),
  ];
  return { ms, from: parts.join(', ') };
}
