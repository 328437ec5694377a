/** Kills at random moments while several people use the installation at once. The same seed gives the same choices. */
import { setTimeout as sleep } from 'node:timers/promises';
import { leaksSince } from './audit.ts';
import { PROCESSES, type ProcessName } from './rig.ts';
import type { Bench } from './sweep.ts';
import { newPerson, TRACKS } from './tracks.ts';

export interface Storm {
  readonly seed: number;
  readonly kills: Readonly<Record<ProcessName, number>>;
  /** How often each end came: `completed`, codes of named ends. */
  readonly ends: ReadonlyMap<string, number>;
  /** Lost sessions, ends without a name, leaks. */
  readonly problems: readonly string[];
}

/** People at the same time. */
const PEOPLE = 3;
/** Between everything being up and the next kill, at most: about as long as a session takes. */
const PAUSE_MS = 2_500;
/** For one use, kills and restarts included, on a busy computer. */
const USE_DEADLINE_MS = 300_000;
/** Between two looks for what is left over, for which everybody waits. */
const KILLS_PER_AUDIT = 25;

/** Numbers from 0 to 1 from a seed (a linear congruential generator with the constants of Numerical Recipes). */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

export async function storm(
  bench: Bench,
  options: { seed: number; kills: number; onKill?: (done: number) => void },
): Promise<Storm> {
  const { rig } = bench;
  const random = randomFrom(options.seed);
  const tracks = TRACKS.filter(({ alone }) => alone !== true);
  const kills = { controller: 0, host: 0, postgres: 0, machine: 0 };
  const ends = new Map<string, number>();
  const problems: string[] = [];
  let uses = 0;

  const person = async (over: () => boolean) => {
    while (!over()) {
      const track = tracks[uses++ % tracks.length];
      // Now and then in the realm of the test identity provider, which the host service starts and ends with its machines.
      const realm = uses % 4 === 0 ? 'test' : 'internet';
      const end = await track
        ?.run(rig, newPerson(), AbortSignal.timeout(USE_DEADLINE_MS), realm)
        .catch((error: unknown) => {
          problems.push(`lost: ${error instanceof Error ? error.message : String(error)}`);
          return 'lost';
        });
      if (end === undefined) return;
      ends.set(end, (ends.get(end) ?? 0) + 1);
    }
  };

  let done = 0;
  // Where no machine runs there is none to kill; that is no kill, and chosen again.
  for (let chosen = 0; done < options.kills && chosen < options.kills * 4; ) {
    let over = false;
    const people = Array.from({ length: PEOPLE }, () => person(() => over));
    for (let round = 0; round < KILLS_PER_AUDIT && done < options.kills; round++, chosen++) {
      await sleep(random() * PAUSE_MS);
      const what = PROCESSES[Math.floor(random() * PROCESSES.length)] ?? 'machine';
      const one = random();
      const hit = what === 'machine' ? await rig.killOneMachine(one) : await rig.kill(what);
      if (hit) {
        kills[what]++;
        done++;
      }
      await rig.bringUp();
      options.onKill?.(done);
    }
    over = true;
    await Promise.all(people);
    const leaks = await leaksSince(rig, bench.known);
    bench.excuse(leaks);
    problems.push(...leaks.map((leak) => `left over after ${done} kills: ${leak}`));
  }
  return { seed: options.seed, kills, ends, problems };
}
