/** What a rule is, and how rules look for their proof. */
import type { DiagnosisName, ProofLine } from '../../protocol/diagnoses.ts';
import type { Checkpoint } from '../../protocol/machine.ts';
import type { Case } from './case.ts';

export interface Rule {
  readonly name: DiagnosisName;
  /** The lines that prove it, or undefined when it is not that. Never guesses: no line, no diagnosis. */
  readonly prove: (found: Case) => ProofLine[] | undefined;
}

/** A fact that was looked up, as a line. */
export const checked = (text: string): ProofLine => ({ source: 'check', text });

type Source = keyof Case['texts'] | 'error';

/** Lines of one source that match, the last ones. `error` is the report's message and its lines. */
export function linesOf(found: Case, source: Source, pattern: RegExp, most = 5): ProofLine[] {
  const lines =
    source === 'error'
      ? [found.error?.message ?? '', ...(found.error?.lines ?? [])]
      : (found.texts[source] ?? '').split('\n');
  return lines
    .filter((line) => pattern.test(line))
    .slice(-most)
    .map((line) => ({ source, text: line.trim().slice(0, 500) }));
}

/** What systemd and the guest's kernel said: on the console, or in the journal where the console has nothing of it. */
export function guestSaid(found: Case, pattern: RegExp, most = 5): ProofLine[] {
  const lines = linesOf(found, 'console.log', pattern, most);
  return lines.length > 0 ? lines : linesOf(found, 'journal.log', pattern, most);
}

/** The same in several sources; a line that two sources have is given once. */
export function linesIn(found: Case, sources: readonly Source[], pattern: RegExp, most = 5): ProofLine[] {
  const lines = sources.flatMap((source) => linesOf(found, source, pattern, most));
  const seen = new Set<string>();
  return lines
    .filter(({ text }) => {
      const key = text.replace(/^\S+Z /, '');
      if (seen.has(key)) return false;
      seen.add(key);
      return true;
    })
    .slice(-most);
}

export const reached = (found: Case, checkpoint: Checkpoint): boolean =>
  found.stamps.some((stamp) => stamp.checkpoint === checkpoint);

/** No proof is no diagnosis. */
export const proof = (...lines: readonly ProofLine[]): ProofLine[] | undefined =>
  lines.length === 0 ? undefined : [...lines];

/** How the machine's first process ended, as a line; none while it runs. */
export function exitLine({ exit }: Case): ProofLine[] {
  if (exit === null) return [];
  const how = exit.signal === null ? `with code ${exit.code}` : `by ${exit.signal}`;
  return [checked(`the machine's first process ended ${how} at ${exit.at}`)];
}
