/** Kills one process at one boundary, brings it back, and looks how the whole comes right. */
import { setTimeout as sleep } from 'node:timers/promises';
import { leaksSince, traces } from './audit.ts';
import { stepOf } from './boundary.ts';
import { PROCESSES, type ProcessName, Rig } from './rig.ts';
import { newPerson, TRACKS, type Track, type TrackName } from './tracks.ts';

export interface Place {
  readonly track: TrackName;
  readonly boundary: string;
  /** Whether a machine runs then. */
  readonly machine: boolean;
}
export interface Case extends Place {
  readonly process: ProcessName;
}

export interface Outcome extends Case {
  /** `completed`, the code of a named end, or what went wrong. */
  readonly end: string;
  /** From everything being up again to the next sign of life of the work; null: nothing was killed. */
  readonly recoveryMs: number | null;
  readonly leaks: readonly string[];
  /** Why this is a failure of the system; undefined: it is none. */
  readonly problem?: string;
}

/** For a whole track, kill and clean-up included, on a busy computer. */
const TRACK_DEADLINE_MS = 90_000;

/** One installation with what belongs to it when it is idle. */
export class Bench implements AsyncDisposable {
  readonly rig: Rig;
  #known: readonly string[] = [];

  private constructor(rig: Rig) {
    this.rig = rig;
  }

  static async start(): Promise<Bench> {
    const bench = new Bench(await Rig.start());
    try {
      // The first session mounts the image's layers, which stay.
      await bench.record(TRACKS.slice(0, 1));
      bench.#known = await traces(bench.rig);
    } catch (error) {
      const said = await bench.rig.logs();
      await bench.rig[Symbol.asyncDispose]();
      throw new Error(`${error instanceof Error ? error.message : error}\n${said}`, { cause: error });
    }
    return bench;
  }

  /** What an idle installation has on this computer, and what was named as left over already. */
  get known(): readonly string[] {
    return this.#known;
  }

  /** From now on this counts as known: a leak is named once, with the kill that left it. */
  excuse(leaks: readonly string[]): void {
    this.#known = [...this.#known, ...leaks];
  }

  /** Runs the tracks without a kill: every boundary, in the order of visits, each with the first track that comes by. */
  async record(tracks: readonly Track[] = TRACKS): Promise<Place[]> {
    const places = new Map<string, Place>();
    for (const { name, run } of tracks) {
      this.rig.hooks.onVisit = async ({ boundary }) => {
        if (places.has(boundary)) return;
        places.set(boundary, { track: name, boundary, machine: false });
        const machine = (await this.rig.machinePids()).length > 0;
        places.set(boundary, { track: name, boundary, machine });
      };
      const end = await run(this.rig, newPerson(), AbortSignal.timeout(TRACK_DEADLINE_MS));
      if (end !== 'completed') throw new Error(`the track ${name} ends as ${end} without any kill`);
    }
    this.rig.hooks.onVisit = undefined;
    return [...places.values()];
  }

  /** Steps that the workflows can take and no recorded boundary belongs to. */
  unvisited(places: readonly Place[]): string[] {
    const visited = new Set(places.map(({ boundary }) => stepOf(boundary)));
    return this.rig.hooks.steps.filter((step) => !visited.has(step));
  }

  async run(one: Case): Promise<Outcome> {
    const { rig } = this;
    const track = TRACKS.find(({ name }) => name === one.track);
    if (track === undefined) throw new Error(`no track ${one.track}`);
    let killed = false;
    let recovery: Promise<number> | undefined;
    let over = false;
    rig.hooks.arm({
      boundary: one.boundary,
      act: async () => {
        killed = await rig.kill(one.process);
        if (killed) recovery = this.#recover(() => over);
        recovery?.catch(() => undefined);
      },
    });
    const limit = AbortSignal.timeout(TRACK_DEADLINE_MS);
    let end: string;
    let problem: string | undefined;
    try {
      end = await track.run(rig, newPerson(), limit);
      if (end === 'internal' || end.includes(' ')) problem = `the end has no name: ${end}`;
    } catch (error) {
      end = 'lost';
      problem = error instanceof Error ? error.message : String(error);
    }
    over = true;
    if (rig.hooks.disarm()) problem ??= 'the boundary was never visited';
    let recoveryMs: number | null = null;
    try {
      recoveryMs = killed ? ((await recovery) ?? null) : null;
    } catch (error) {
      problem ??= error instanceof Error ? error.message : String(error);
    }
    rig.hooks.onVisit = undefined;
    await rig.bringUp();
    const leaks = await leaksSince(rig, this.#known);
    if (leaks.length > 0) problem ??= 'something is left over';
    this.excuse(leaks);
    return { ...one, end, recoveryMs, leaks, ...(problem === undefined ? {} : { problem }) };
  }

  /** Starts again what died; milliseconds from then to the next boundary that the work comes to, or to its end. */
  async #recover(over: () => boolean): Promise<number> {
    await this.rig.bringUp();
    const began = performance.now();
    let seen = false;
    this.rig.hooks.onVisit = () => {
      seen = true;
    };
    while (!seen && !over()) await sleep(10);
    return performance.now() - began;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }
}

/** Every boundary with every process that is there to be killed. */
export const allCases = (places: readonly Place[]): Case[] =>
  places.flatMap((place) =>
    PROCESSES.filter((process) => process !== 'machine' || place.machine).map((process) => ({
      ...place,
      process,
    })),
  );
