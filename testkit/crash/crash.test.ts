/**
 * Crash safety, on light guests. In the default run: a fixed sample of the steps at their worst moment (done, but not yet
 * recorded) and of the effects within steps. With POLYDEV_CRASH=all (`./polydev test crash`): every
 * boundary with every process, and 200 kills at random moments. The summary is .artifacts/crash.md.
 */
import { randomInt } from 'node:crypto';
import { appendFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CHECKOUT, lacking } from '../../host/testing/fixture.ts';
import { leaksAfterStop } from './audit.ts';
import { storm } from './storm.ts';
import { allCases, Bench, type Case, type Outcome, type Place } from './sweep.ts';
import { stormSummary, sweepSummary, sweepTable } from './table.ts';

const missing = lacking({ image: true });
const all = process.env.POLYDEV_CRASH === 'all';
/** Installations side by side. */
const BENCHES = 2;
const KILLS = all ? 200 : 12;
/** The default run makes the same choices each time; the full one new ones. */
const SEED = '20261121';
/** Of the effects within steps, the default run takes one in so many. */
const SAMPLE = 24;
/** Of the steps with each process in turn, one in so many: odd, so that neighbouring steps lose other processes. */
const STEPS = 3;
/** A whole run, in milliseconds; every wait within has a bound of its own. */
const DEADLINE_MS = all ? 10_800_000 : 1_800_000;
const REPORT = path.join(CHECKOUT, '.artifacts', 'crash.md');

/** What is killed in this run. */
function choose(places: readonly Place[]): Case[] {
  const cases = allCases(places);
  // The steps themselves come first.
  const effect = ({ boundary }: Case) => (boundary.includes('>') ? 1 : 0);
  if (all) return cases.sort((a, b) => effect(a) - effect(b));
  let effects = 0;
  let steps = 0;
  return cases.filter(({ boundary }) => {
    if (boundary.includes('>')) return effects++ % SAMPLE === 0;
    return boundary.endsWith(' done') && steps++ % STEPS === 0;
  });
}

describe.skipIf(missing !== undefined)(`crash safety (needs ${missing ?? 'nothing more'})`, () => {
  const benches: Bench[] = [];
  afterAll(async () => {
    for (const bench of benches) await bench[Symbol.asyncDispose]();
  });

  it('comes right after a kill at every boundary, and leaves nothing', { timeout: DEADLINE_MS }, async () => {
    for (let count = 0; count < BENCHES; count++) benches.push(await Bench.start());
    const [first] = benches;
    const places = (await first?.record()) ?? [];
    expect(first?.unvisited(places), 'steps that no track comes to').toEqual([]);
    const queue = choose(places);
    const order = [...queue];
    const outcomes: Outcome[] = [];
    await mkdir(path.dirname(REPORT), { recursive: true });
    await writeFile(`${REPORT}.log`, '');
    await Promise.all(
      benches.map(async (bench) => {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
          const outcome = await bench.run(next);
          outcomes.push(outcome);
          await appendFile(`${REPORT}.log`, `${JSON.stringify(outcome)}\n`);
        }
      }),
    );
    const place = ({ boundary, process }: Case) =>
      order.findIndex((one) => one.boundary === boundary && one.process === process);
    outcomes.sort((a, b) => place(a) - place(b));
    const report = `${sweepSummary(outcomes)}\n\n${sweepTable(outcomes)}\n`;
    await writeFile(REPORT, report);
    process.stderr.write(`\n${all ? report : `${sweepSummary(outcomes)}\n`}`);
    expect(outcomes.filter(({ problem }) => problem !== undefined)).toEqual([]);
  });

  it('comes right after kills at random moments, and leaves nothing', { timeout: DEADLINE_MS }, async () => {
    // Alone, with `-t random`, it has none yet.
    if (benches.length === 0) benches.push(await Bench.start());
    const [bench] = benches;
    if (bench === undefined) throw new Error('there is no installation');
    const seed = process.env.POLYDEV_CRASH_SEED ?? (all ? String(randomInt(2 ** 31)) : SEED);
    process.stderr.write(`\nrandom kills with POLYDEV_CRASH_SEED=${seed}\n`);
    const result = await storm(bench, { seed: Number(seed), kills: KILLS });
    const summary = `${stormSummary(result)}\n`;
    process.stderr.write(summary);
    await mkdir(path.dirname(REPORT), { recursive: true });
    await appendFile(REPORT, `\n${summary}`);
    expect(result.problems).toEqual([]);
  });

  it('leaves nothing at all when it is stopped', { timeout: 120_000 }, async () => {
    for (const bench of benches.splice(0)) {
      await bench[Symbol.asyncDispose]();
      expect(await leaksAfterStop(bench.rig)).toEqual([]);
    }
  });
});
