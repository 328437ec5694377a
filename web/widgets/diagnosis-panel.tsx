import type { Machine } from '../../protocol/api.ts';
import type { Diagnosis, DiagnosisReply } from '../../protocol/diagnoses.ts';
import { useJson } from '../data/resource.ts';
import { ProblemPanel } from './problem-panel.tsx';

const WHOSE: Readonly<Record<Diagnosis['fault'], string>> = {
  user: 'yours',
  operator: "that of this host's operator",
  system: 'Polydev’s, so please report it',
};

interface DiagnosisPanelProps {
  readonly machine: Machine;
  /** What the error is called when there is no diagnosis. */
  readonly errorTitle: string;
}

/**
 * Why a machine does not work: what is the matter, what to do, the lines that prove it, and its name, which has a section
 * in the documentation. The error that was reported first is below it, or stands alone when there is no diagnosis. Nothing
 * when nothing is wrong.
 */
export function DiagnosisPanel({ machine, errorTitle }: DiagnosisPanelProps) {
  const known = machine.health?.diagnosis ?? null;
  if (known !== null) return <Shown diagnosis={known} error={machine.error} />;
  return <Asked machine={machine} errorTitle={errorTitle} />;
}

/** Asked for once: the host looks things up for each answer. */
function Asked({ machine, errorTitle }: DiagnosisPanelProps) {
  const { value, problem } = useJson<DiagnosisReply>(`/api/machines/${machine.id}/diagnosis`);
  const { error } = machine;
  const diagnosis = value?.diagnosis ?? null;
  if (diagnosis !== null) return <Shown diagnosis={diagnosis} error={error} />;
  // The error waits for the diagnosis, so that the page does not change what it says.
  const answered = value !== undefined || problem !== undefined;
  return (
    <>
      {problem !== undefined && <ProblemPanel title="There is no diagnosis" problem={problem} />}
      {answered && error !== null && <ProblemPanel title={errorTitle} problem={error} open />}
    </>
  );
}

function Shown({ diagnosis, error }: { readonly diagnosis: Diagnosis; readonly error: Machine['error'] }) {
  const { name, summary, remedy, lines, fault } = diagnosis;
  return (
    <section className="problem" aria-labelledby="diagnosis">
      <div className="diagnosis-head">
        <h2 id="diagnosis">Diagnosis</h2>
        <code className="diagnosis-name">{name}</code>
      </div>
      <p className="problem-message">{summary}</p>
      <p>
        <strong>What to do: </strong>
        {remedy}
      </p>
      <details open>
        <summary>The lines that prove it ({lines.length})</summary>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrollable region must be focusable. */}
        <pre className="lines proof" tabIndex={0}>
          {lines.map(({ source, text }) => `${source}: ${text}`).join('\n')}
        </pre>
      </details>
      {error !== null && (
        <details>
          <summary>
            What was reported first: <code>{error.code}</code>
          </summary>
          <pre className="lines proof">{[error.message, ...(error.lines ?? [])].join('\n')}</pre>
        </details>
      )}
      <p className="problem-facts">Whose turn: {WHOSE[fault]}.</p>
    </section>
  );
}
