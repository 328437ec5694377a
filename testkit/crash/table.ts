/** The summary of a sweep: a line for each boundary, a column for each process. */
import { PROCESSES } from './rig.ts';
import type { Storm } from './storm.ts';
import type { Outcome } from './sweep.ts';

const cell = (outcome: Outcome | undefined): string => {
  if (outcome === undefined) return '-';
  const { end, recoveryMs, leaks, problem } = outcome;
  const time = recoveryMs === null ? '' : ` ${Math.round(recoveryMs)} ms`;
  const wrong =
    problem === undefined ? '' : ` WRONG: ${problem}${leaks.length > 0 ? ` (${leaks.join('; ')})` : ''}`;
  return `${end}${time}${wrong}`;
};

export function sweepTable(outcomes: readonly Outcome[]): string {
  const rows = new Map<string, Outcome[]>();
  for (const outcome of outcomes) {
    const row = rows.get(outcome.boundary);
    if (row === undefined) rows.set(outcome.boundary, [outcome]);
    else row.push(outcome);
  }
  return [
    `| boundary | ${PROCESSES.join(' | ')} |`,
    `| --- |${' --- |'.repeat(PROCESSES.length)}`,
    ...[...rows].map(([boundary, row]) => {
      const cells = PROCESSES.map((name) => cell(row.find(({ process }) => process === name)));
      return `| ${boundary} | ${cells.join(' | ')} |`;
    }),
  ].join('\n');
}

/** One line for each process: how many kills, how they ended, how long the recovery took. */
export function sweepSummary(outcomes: readonly Outcome[]): string {
  return PROCESSES.map((name) => {
    const mine = outcomes.filter(({ process }) => process === name);
    const times = mine.flatMap(({ recoveryMs }) => recoveryMs ?? []).sort((a, b) => a - b);
    const at = (part: number) => Math.round(times[Math.floor((times.length - 1) * part)] ?? 0);
    const leaks = mine.reduce((sum, { leaks: left }) => sum + left.length, 0);
    const wrong = mine.filter(({ problem }) => problem !== undefined).length;
    return (
      `${name}: ${mine.length} kills, ${countsOf(mine.map(({ end }) => end))}; recovery median ${at(0.5)} ms, ` +
      `90 % ${at(0.9)} ms, longest ${at(1)} ms; leaks ${leaks}; wrong ${wrong}`
    );
  }).join('\n');
}

export function stormSummary({ seed, kills, ends, problems }: Storm): string {
  const total = Object.values(kills).reduce((sum, count) => sum + count, 0);
  const by = Object.entries(kills).map(([name, count]) => `${name} ${count}`);
  const how = [...ends].map(([end, count]) => `${count} ${end}`);
  return [
    `random kills: seed ${seed}, ${total} (${by.join(', ')}); uses: ${how.join(', ')}; problems ${problems.length}`,
    ...problems,
  ].join('\n');
}

function countsOf(values: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([value, count]) => `${count} ${value}`)
    .join(', ');
}
