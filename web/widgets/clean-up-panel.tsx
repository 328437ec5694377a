import { useState } from 'react';
import type { CleanUp, Machine } from '../../protocol/api.ts';
import type { Settings } from '../../protocol/settings.ts';
import { type Problem, patch } from '../data/api.ts';
import { dateTime, duration, gibibytes } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { KIND_WORDS } from '../data/words.ts';
import { ActionButton, Link } from './basics.tsx';
import { MachineActions } from './machine-actions.tsx';
import { ProblemPanel } from './problem-panel.tsx';

const REFRESH_MS = 5_000;

const span = (seconds: number): string => (seconds === 0 ? 'not at all' : duration(seconds * 1000));

/** What stays for a while and when it goes, with the switch that keeps failed machines. */
export function CleanUpPanel() {
  const { value, problem, reload } = useJson<CleanUp>('/api/clean-up', REFRESH_MS);
  const [actionProblem, setActionProblem] = useState<Problem>();
  if (value === undefined && problem === undefined) return null;
  return (
    <section aria-labelledby="clean-up" className="block">
      <h2 id="clean-up">Clean-up</h2>
      {problem !== undefined && <ProblemPanel title="The clean-up cannot be shown" problem={problem} />}
      {actionProblem !== undefined && <ProblemPanel title="That did not work" problem={actionProblem} />}
      {value !== undefined && (
        <>
          <KeepSwitch settings={value.settings} onProblem={setActionProblem} onChange={reload} />
          <ul className="list">
            {value.kept.map((machine) => (
              <KeptMachine
                key={machine.id}
                machine={machine}
                onProblem={setActionProblem}
                onChange={reload}
              />
            ))}
            {value.orphans.map(({ id, hostId, removeAt }) => (
              <li key={id} className="list-item">
                <div className="list-main">
                  <span className="list-title">
                    <code>{id}</code>
                  </span>
                  <span className="hint">
                    at {hostId}, in no database; it goes at{' '}
                    <time dateTime={removeAt}>{dateTime(removeAt)}</time>
                  </span>
                </div>
              </li>
            ))}
          </ul>
          {value.kept.length + value.orphans.length === 0 && <p className="empty">Nothing is kept.</p>}
        </>
      )}
    </section>
  );
}

interface SwitchProps {
  readonly settings: Settings;
  readonly onProblem: (problem: Problem | undefined) => void;
  readonly onChange: () => void;
}

function KeepSwitch({ settings, onProblem, onChange }: SwitchProps) {
  const { keepFailed } = settings;
  return (
    <>
      <div className="row">
        <span>
          Machines of logins that fail are <strong>{keepFailed ? 'kept' : 'removed'}</strong>.
        </span>
        <ActionButton
          onProblem={onProblem}
          action={async () => {
            await patch('/api/settings', { keepFailed: !keepFailed });
            onChange();
          }}
        >
          {keepFailed ? 'Remove failed machines' : 'Keep failed machines'}
        </ActionButton>
      </div>
      <dl className="facts">
        <dt>Kept for</dt>
        <dd>
          {span(settings.keepForSeconds)}, at most {settings.keepAtMost}
        </dd>
        <dt>Others that failed stay</dt>
        <dd>{span(settings.failedGraceSeconds)}</dd>
        <dt>Machines in no database stay</dt>
        <dd>{span(settings.orphanGraceSeconds)}</dd>
        <dt>Of one person</dt>
        <dd>
          {settings.machinesPerPerson} machines, {gibibytes(settings.diskMiBPerPerson)} of disk
        </dd>
      </dl>
    </>
  );
}

interface KeptProps {
  readonly machine: Machine;
  readonly onProblem: (problem: Problem | undefined) => void;
  readonly onChange: () => void;
}

function KeptMachine({ machine, onProblem, onChange }: KeptProps) {
  return (
    <li className="list-item">
      <div className="list-main">
        <span className="list-title">
          <Link to={{ page: 'machine', id: machine.id }}>{KIND_WORDS[machine.kind]}</Link>
        </span>
        <span className="hint">
          <code>{machine.id}</code>
          {machine.removeAt !== null && (
            <>
              , kept until <time dateTime={machine.removeAt}>{dateTime(machine.removeAt)}</time>
            </>
          )}
        </span>
        {machine.error !== null && <span className="list-error">{machine.error.message}</span>}
      </div>
      <MachineActions machine={machine} onProblem={onProblem} onChange={onChange} />
    </li>
  );
}
