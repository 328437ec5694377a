import type { ReactNode } from 'react';
import type { Problem } from '../data/api.ts';

export interface ProblemPanelProps {
  readonly title: string;
  readonly problem: Problem;
  /** Whether the proving lines are shown at once. */
  readonly open?: boolean;
  /** Where to go on from here: links or buttons. */
  readonly children?: ReactNode;
}

const FAULT_WORDS = {
  user: 'for you to do',
  operator: 'for the operator of this host',
  system: "Polydev's own fault",
} as const;

/** What went wrong, what to do about it, and the lines that prove it. Every error in the dashboard ends here. */
export function ProblemPanel({ title, problem, open = false, children }: ProblemPanelProps) {
  return (
    <section className="problem" role="alert">
      <h2>{title}</h2>
      <p className="problem-message">{problem.message}</p>
      <p>
        <strong>What to do: </strong>
        {problem.remedy}
      </p>
      {problem.lines !== undefined && problem.lines.length > 0 && (
        <details open={open}>
          <summary>The lines that prove it ({problem.lines.length})</summary>
          {/* Long lines scroll; a keyboard reaches the box to scroll it. */}
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrollable region must be focusable. */}
          <pre className="lines" tabIndex={0}>
            {problem.lines.join('\n')}
          </pre>
        </details>
      )}
      {(problem.code !== undefined || problem.requestId !== undefined) && (
        <p className="problem-facts">
          {problem.code !== undefined && (
            <>
              Name: <code>{problem.code}</code>
            </>
          )}
          {problem.fault !== undefined && <> ({FAULT_WORDS[problem.fault]})</>}
          {problem.requestId !== undefined && (
            <>
              {' '}
              Request: <code>{problem.requestId}</code>
            </>
          )}
        </p>
      )}
      {children !== undefined && <div className="row">{children}</div>}
    </section>
  );
}
