import type { Diagnosis, DiagnosisReply } from '../../protocol/diagnoses.ts';
import { useJson } from '../data/resource.ts';
import { CHECKPOINT_WORDS } from '../data/words.ts';
import { ProblemPanel } from './problem-panel.tsx';

const WHOSE: Readonly<Record<Diagnosis['fault'], string>> = {
  user: 'for you to do',
  operator: 'for the operator of this host',
  system: "Polydev's own fault",
};

/**
 * Why a machine does not work: what is the matter, what to do, the lines that prove it, and its name, which has a section
 * in the documentation. Nothing when nothing is wrong. Asked for once: the host looks things up for each answer.
 */
export function DiagnosisPanel({ id }: { readonly id: string }) {
  const { value, problem } = useJson<DiagnosisReply>(`/api/machines/${id}/diagnosis`);
  if (problem !== undefined) return <ProblemPanel title="There is no diagnosis" problem={problem} />;
  const diagnosis = value?.diagnosis ?? null;
  if (diagnosis === null) return null;
  const { name, summary, remedy, lines, fault, checkpoint } = diagnosis;
  return (
    <section className="problem" aria-labelledby="diagnosis">
      <h2 id="diagnosis">Diagnosis</h2>
      <p className="problem-message">{summary}</p>
      <p>
        <strong>What to do: </strong>
        {remedy}
      </p>
      <details open>
        <summary>The lines that prove it ({lines.length})</summary>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrollable region must be focusable. */}
        <pre className="lines" tabIndex={0}>
          {lines.map(({ source, text }) => `${source}: ${text}`).join('\n')}
        </pre>
      </details>
      <p className="problem-facts">
        Name: <code>{name}</code> ({WHOSE[fault]})
        {checkpoint !== null && <> Last step: {CHECKPOINT_WORDS[checkpoint].reached}</>}
      </p>
    </section>
  );
}
