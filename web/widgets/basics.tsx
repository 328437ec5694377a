/** widgets/: what pages are made of. A widget shows what it is given; only streams (desktop, terminal) call the API. */
import type { MouseEvent, ReactNode } from 'react';
import { useEffect, useRef, useState } from 'react';
import { type Problem, problemOf } from '../data/api.ts';
import { navigate, pathOf, type Route } from '../data/routes.ts';
import type { Tone } from '../data/words.ts';
import { ProblemPanel } from './problem-panel.tsx';

export interface LinkProps {
  readonly to: Route;
  readonly children: ReactNode;
  readonly className?: string;
  readonly current?: boolean;
  readonly label?: string;
  readonly id?: string;
}

/** A real link (opens in a new tab, can be copied) that does not load the page again. */
export function Link({ to, children, className, current, label, id }: LinkProps) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(to);
  };
  return (
    <a
      id={id}
      href={pathOf(to)}
      onClick={follow}
      className={className}
      aria-current={current ? 'page' : undefined}
      aria-label={label}
    >
      {children}
    </a>
  );
}

/** A state in words with a coloured dot; the words carry the meaning, the colour repeats it. */
export function Badge({ tone, children }: { readonly tone: Tone; readonly children: ReactNode }) {
  return <span className={`badge badge-${tone}`}>{children}</span>;
}

export interface ActionButtonProps {
  readonly children: ReactNode;
  /** The button is disabled until it settles; a failure is given to `onProblem`. */
  readonly action: () => Promise<void>;
  readonly onProblem: (problem: Problem | undefined) => void;
  readonly kind?: 'primary' | 'plain' | 'danger' | 'quiet';
  readonly label?: string;
  readonly type?: 'button' | 'submit';
}

/** A button that does something remote: shows that it is under way, cannot be pressed twice, reports failure. */
export function ActionButton({ children, action, onProblem, kind = 'plain', label }: ActionButtonProps) {
  const [busy, setBusy] = useState(false);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  const press = async () => {
    if (busy) return;
    setBusy(true);
    onProblem(undefined);
    try {
      await action();
    } catch (thrown) {
      onProblem(problemOf(thrown));
    } finally {
      if (mounted.current) setBusy(false);
    }
  };
  // aria-disabled, not disabled: the focus stays where the person left it.
  return (
    <button
      type="button"
      className={`button button-${kind}`}
      aria-disabled={busy}
      aria-busy={busy}
      aria-label={label}
      onClick={() => void press()}
    >
      {children}
    </button>
  );
}

export interface ConfirmProps extends Omit<ActionButtonProps, 'onProblem'> {
  readonly title: string;
  readonly explanation: ReactNode;
  /** What the button that does it says. */
  readonly confirm: string;
}

/** A button that asks first, in a modal dialog, saying what will happen. */
export function ConfirmButton({ title, explanation, confirm, action, children, kind, label }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [problem, setProblem] = useState<Problem>();
  const close = () => dialog.current?.close();
  return (
    <>
      <button
        type="button"
        className={`button button-${kind ?? 'plain'}`}
        aria-label={label}
        onClick={() => {
          setProblem(undefined);
          dialog.current?.showModal();
        }}
      >
        {children}
      </button>
      <dialog ref={dialog} className="dialog" aria-label={title}>
        <h2>{title}</h2>
        <div className="dialog-text">{explanation}</div>
        {problem !== undefined && <ProblemPanel title="That did not work" problem={problem} />}
        <div className="row row-end">
          <button type="button" className="button button-plain" onClick={close}>
            Keep it
          </button>
          <ActionButton
            kind="danger"
            onProblem={setProblem}
            action={async () => {
              await action();
              close();
            }}
          >
            {confirm}
          </ActionButton>
        </div>
      </dialog>
    </>
  );
}

/** Stands where content will be, with the height that it will have, so that nothing jumps. */
export function Loading({ what, lines = 3 }: { readonly what: string; readonly lines?: number }) {
  return (
    <div className="loading" role="status">
      <span className="visually-hidden">Loading {what}</span>
      {Array.from({ length: lines }, (_, line) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the lines are all the same and never move.
        <span key={line} className="loading-line" />
      ))}
    </div>
  );
}

/** A page's heading row: its name, and beside it what can be done. */
export function PageHead({ title, children }: { readonly title: ReactNode; readonly children?: ReactNode }) {
  return (
    <div className="page-head">
      <h1>{title}</h1>
      {children}
    </div>
  );
}

/** Sets the tab's title while the page is shown. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Polydev`;
  }, [title]);
}
