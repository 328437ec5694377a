import { useState } from 'react';
import type { Machine } from '../../protocol/api.ts';
import type { Problem } from '../data/api.ts';
import { dateTime } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { KIND_WORDS, machineWords } from '../data/words.ts';
import { Badge, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { MachineActions } from '../widgets/machine-actions.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

const REFRESH_MS = 3_000;

export function MachinesPage() {
  useTitle('Machines');
  const machines = useJson<{ machines: Machine[] }>('/api/machines', REFRESH_MS);
  const [actionProblem, setActionProblem] = useState<Problem>();
  const all = machines.value?.machines;
  const live = all?.filter((machine) => machine.endedAt === null) ?? [];
  const ended = all?.filter((machine) => machine.endedAt !== null) ?? [];
  const kept = ended.filter((machine) => machine.removeAt !== null);
  const gone = ended.filter((machine) => machine.removeAt === null);
  return (
    <>
      <PageHead title="Machines" />
      {machines.problem !== undefined && (
        <ProblemPanel title="This page is not up to date" problem={machines.problem} />
      )}
      {actionProblem !== undefined && <ProblemPanel title="That did not work" problem={actionProblem} />}
      {all === undefined && machines.problem === undefined && <Loading what="the machines" lines={4} />}
      {all?.length === 0 && (
        <p className="empty">
          There is no machine. Connecting an account makes one.{' '}
          <Link to={{ page: 'home' }}>Connect an account</Link>
        </p>
      )}
      {live.length > 0 && (
        <ul className="list block">
          {live.map((machine) => (
            <MachineRow
              key={machine.id}
              machine={machine}
              onProblem={setActionProblem}
              onChange={machines.reload}
            />
          ))}
        </ul>
      )}
      {kept.length > 0 && (
        <section aria-labelledby="kept" className="block">
          <h2 id="kept">Failed, and kept for a while</h2>
          <ul className="list">
            {kept.map((machine) => (
              <MachineRow
                key={machine.id}
                machine={machine}
                onProblem={setActionProblem}
                onChange={machines.reload}
              />
            ))}
          </ul>
        </section>
      )}
      {gone.length > 0 && (
        <section aria-labelledby="gone" className="block">
          <h2 id="gone">Gone, with their evidence</h2>
          <ul className="list">
            {gone.map((machine) => (
              <MachineRow
                key={machine.id}
                machine={machine}
                onProblem={setActionProblem}
                onChange={machines.reload}
              />
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

interface MachineRowProps {
  readonly machine: Machine;
  readonly onProblem: (problem: Problem | undefined) => void;
  readonly onChange: () => void;
}

function MachineRow({ machine, onProblem, onChange }: MachineRowProps) {
  const { words, tone } = machineWords(machine);
  return (
    <li className="list-item">
      <div className="list-main">
        <span className="list-title">
          <Link to={{ page: 'machine', id: machine.id }}>{KIND_WORDS[machine.kind]}</Link>
          {machine.realm === 'test' && <span className="mark">test</span>}
          {machine.pooled && <span className="mark">warm</span>}
        </span>
        <span className="hint">
          <code>{machine.id}</code>, made{' '}
          <time dateTime={machine.createdAt}>{dateTime(machine.createdAt)}</time>
          {machine.address !== null && (
            <>
              , <code>{machine.address}</code>
            </>
          )}
          {machine.removeAt !== null && (
            <>
              , kept until <time dateTime={machine.removeAt}>{dateTime(machine.removeAt)}</time>
            </>
          )}
        </span>
        {machine.error !== null && <span className="list-error">{machine.error.message}</span>}
        {machine.health?.diagnosis != null && (
          <span className="list-error">{machine.health.diagnosis.summary}</span>
        )}
      </div>
      <Badge tone={tone}>{words}</Badge>
      <MachineActions machine={machine} onProblem={onProblem} onChange={onChange} />
    </li>
  );
}
