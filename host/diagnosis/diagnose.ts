/** Asks the rules. Pure: the same case gives the same answer. */
import { DIAGNOSES, type Diagnosis, type DiagnosisName, type ProofLine } from '../../protocol/diagnoses.ts';
import type { Case } from './case.ts';
import { checked, exitLine, linesOf } from './rule.ts';
import { RULES } from './rules/index.ts';

/**
 * The first rule that has a proof; `unknown` with the last checkpoint for a failure that none knows; null when nothing
 * failed and no rule sees anything.
 */
export function diagnose(found: Case): Diagnosis | null {
  for (const { name, prove } of RULES) {
    const lines = prove(found);
    if (lines !== undefined) return describe(name, found, [...lines, ...deadlineLines(found)]);
  }
  if (found.error === null && found.exit === null) return null;
  const last = found.stamps.at(-1)?.checkpoint;
  return describe('unknown', found, [
    checked(last === undefined ? 'no checkpoint was reached' : `the last checkpoint reached was ${last}`),
    ...exitLine(found),
    ...linesOf(found, 'error', /./, 5),
    ...linesOf(found, 'console.log', /\S/, 5),
  ]);
}

/** A boot that was given up at a deadline: which, and what it was made from. */
const deadlineLines = (found: Case): ProofLine[] =>
  found.error?.code === 'machine_boot_stalled' ? linesOf(found, 'error', /^deadline of /) : [];

function describe(name: DiagnosisName, found: Case, lines: readonly ProofLine[]): Diagnosis {
  const { summary, fault, remedy } = DIAGNOSES[name];
  return {
    name,
    summary,
    fault,
    remedy,
    lines: lines.slice(0, 20),
    checkpoint: found.stamps.at(-1)?.checkpoint ?? null,
    at: new Date().toISOString(),
  };
}
