import { useEffect, useRef, useState } from 'react';
import type { Machine } from '../../protocol/api.ts';
import type { EvidenceFile } from '../../protocol/host.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import type { Problem } from '../data/api.ts';
import { byteSize, dateTime } from '../data/clock.ts';
import { useJson, useText } from '../data/resource.ts';
import { KIND_WORDS, machineWords } from '../data/words.ts';
import { Badge, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { BootList } from '../widgets/boot-list.tsx';
import { DiagnosisPanel } from '../widgets/diagnosis-panel.tsx';
import { MachineActions } from '../widgets/machine-actions.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

const REFRESH_MS = 2_000;

/** One machine: how far its boot came and when, its console, and the evidence that stays after it is gone. */
export function MachinePage({ id }: { readonly id: string }) {
  const { value: machine, problem, reload } = useJson<Machine>(`/api/machines/${id}`, REFRESH_MS);
  const [actionProblem, setActionProblem] = useState<Problem>();
  useTitle(machine === undefined ? 'Machine' : KIND_WORDS[machine.kind]);
  if (machine === undefined) {
    if (problem === undefined) return <Loading what="the machine" lines={6} />;
    return (
      <ProblemPanel title="The machine cannot be shown" problem={problem}>
        <Link to={{ page: 'machines' }} className="button button-plain">
          All machines
        </Link>
      </ProblemPanel>
    );
  }
  const { words, tone } = machineWords(machine);
  const refresh = machine.endedAt === null || machine.removeAt !== null ? REFRESH_MS : 0;
  return (
    <>
      <PageHead title={KIND_WORDS[machine.kind]}>
        <span role="status">
          <Badge tone={tone}>{words}</Badge>
        </span>
        {machine.realm === 'test' && <span className="mark">test</span>}
        <span className="page-head-end">
          <MachineActions machine={machine} onProblem={setActionProblem} onChange={reload} />
        </span>
      </PageHead>
      {problem !== undefined && <ProblemPanel title="This page is not up to date" problem={problem} />}
      {actionProblem !== undefined && <ProblemPanel title="That did not work" problem={actionProblem} />}
      {/* Another state may have another cause: then it is asked for again. */}
      <DiagnosisPanel
        key={`${machine.state} ${machine.health?.since ?? ''}`}
        machine={machine}
        errorTitle={problemTitle(machine.state)}
      />
      <div className="session">
        <aside className="session-steps">
          <h2>Boot</h2>
          <BootList machine={machine} />
          <MachineFacts machine={machine} />
        </aside>
        <div className="session-stage">
          <Console id={id} everyMs={refresh} />
          <Evidence id={id} everyMs={refresh} />
        </div>
      </div>
    </>
  );
}

/** What is wrong with a machine stays on it until its next start went well. */
function problemTitle(state: MachineState): string {
  if (state === 'stopped') return 'Why this machine does not run';
  if (state === 'ready') return 'This machine runs, but not all of it works';
  return state === 'requested' || state === 'creating' || state === 'booting'
    ? 'Why it did not run before'
    : 'Why this machine failed';
}

function MachineFacts({ machine }: { readonly machine: Machine }) {
  const facts: [string, string | null][] = [
    ['Id', machine.id],
    ['Person', machine.userId],
    ['Driver', machine.driver],
    ['Image', machine.image],
    ['Address', machine.address],
  ];
  return (
    <dl className="facts">
      {facts.map(
        ([name, value]) =>
          value !== null && (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <code>{value}</code>
              </dd>
            </div>
          ),
      )}
      <dt>Made</dt>
      <dd>
        <time dateTime={machine.createdAt}>{dateTime(machine.createdAt)}</time>
      </dd>
      {machine.endedAt !== null && (
        <>
          <dt>Ended</dt>
          <dd>
            <time dateTime={machine.endedAt}>{dateTime(machine.endedAt)}</time>
          </dd>
        </>
      )}
      {machine.removeAt !== null && (
        <>
          <dt>Kept until</dt>
          <dd>
            <time dateTime={machine.removeAt}>{dateTime(machine.removeAt)}</time>
          </dd>
        </>
      )}
      {machine.sessionId !== null && (
        <>
          <dt>Login</dt>
          <dd>
            <Link to={{ page: 'session', id: machine.sessionId }}>
              <code>{machine.sessionId}</code>
            </Link>
          </dd>
        </>
      )}
    </dl>
  );
}

function Console({ id, everyMs }: { readonly id: string; readonly everyMs: number }) {
  const { value, problem } = useText(`/api/machines/${id}/console`, everyMs);
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  // Follows the console like a terminal, unless the person has scrolled up to read.
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the text changes.
  useEffect(() => {
    if (box.current !== null && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [value]);
  return (
    <section aria-labelledby="console" className="block">
      <h2 id="console">Console</h2>
      {problem !== undefined && <ProblemPanel title="The console cannot be read" problem={problem} />}
      <pre
        ref={box}
        className="lines console"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrollable region must be focusable.
        tabIndex={0}
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          atEnd.current = scrollHeight - scrollTop - clientHeight < 24;
        }}
      >
        {value === '' ? 'Nothing was written yet.' : value}
      </pre>
    </section>
  );
}

function Evidence({ id, everyMs }: { readonly id: string; readonly everyMs: number }) {
  const { value, problem } = useJson<{ files: EvidenceFile[] }>(`/api/machines/${id}/evidence`, everyMs);
  const [open, setOpen] = useState<string>();
  return (
    <section aria-labelledby="evidence" className="block">
      <h2 id="evidence">Evidence</h2>
      {problem !== undefined && <ProblemPanel title="The evidence cannot be listed" problem={problem} />}
      {value?.files.length === 0 && <p className="empty">No file was kept.</p>}
      <ul className="list">
        {value?.files.map((file) => (
          <li key={file.name} className="list-item list-item-wrap">
            <div className="list-main">
              <span className="list-title">
                <code>{file.name}</code>
              </span>
              <span className="hint">
                {byteSize(file.bytes)}, <time dateTime={file.modified}>{dateTime(file.modified)}</time>
              </span>
            </div>
            <button
              type="button"
              className="button button-plain"
              aria-expanded={open === file.name}
              aria-label={`Show ${file.name}`}
              onClick={() => setOpen(open === file.name ? undefined : file.name)}
            >
              {open === file.name ? 'Hide' : 'Show'}
            </button>
            <a
              className="button button-plain"
              href={evidencePath(id, file.name)}
              download={file.name}
              aria-label={`Download ${file.name}`}
            >
              Download
            </a>
            {open === file.name &&
              (file.name.endsWith('.png') ? (
                <img
                  className="evidence-picture"
                  src={evidencePath(id, file.name)}
                  alt="The desktop when it failed"
                />
              ) : (
                <EvidenceText path={evidencePath(id, file.name)} />
              ))}
          </li>
        ))}
      </ul>
    </section>
  );
}

const evidencePath = (id: string, name: string) => `/api/machines/${id}/evidence/${encodeURIComponent(name)}`;

function EvidenceText({ path }: { readonly path: string }) {
  const { value, problem } = useText(path);
  if (problem !== undefined) return <ProblemPanel title="The file cannot be read" problem={problem} />;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrollable region must be focusable.
    <pre className="lines" tabIndex={0}>
      {value ?? ''}
    </pre>
  );
}
