import type { Machine } from '../../protocol/api.ts';
import { type Problem, post, remove } from '../data/api.ts';
import { KIND_WORDS, MACHINE_ACTION_WORDS } from '../data/words.ts';
import { ActionButton, ConfirmButton, Link } from './basics.tsx';

const VERBS = ['start', 'resume', 'hibernate', 'stop'] as const;
type Verb = (typeof VERBS)[number];

export interface MachineActionsProps {
  readonly machine: Machine;
  readonly onProblem: (problem: Problem | undefined) => void;
  readonly onChange: () => void;
}

/** The buttons of a machine: exactly what the API says may be done with it now. */
export function MachineActions({ machine, onProblem, onChange }: MachineActionsProps) {
  const name = `${KIND_WORDS[machine.kind]} ${machine.id}`;
  const act = (verb: Verb) => async () => {
    await post(`/api/machines/${machine.id}/${verb}`);
    onChange();
  };
  return (
    <div className="row">
      {machine.actions.includes('open_terminal') && (
        <Link
          to={{ page: 'terminal', id: machine.id }}
          className="button button-primary"
          label={`${MACHINE_ACTION_WORDS.open_terminal} in ${name}`}
        >
          {MACHINE_ACTION_WORDS.open_terminal}
        </Link>
      )}
      {VERBS.map(
        (verb) =>
          machine.actions.includes(verb) && (
            <ActionButton
              key={verb}
              onProblem={onProblem}
              action={act(verb)}
              label={`${MACHINE_ACTION_WORDS[verb]} ${name}`}
            >
              {MACHINE_ACTION_WORDS[verb]}
            </ActionButton>
          ),
      )}
      {machine.actions.includes('destroy') && (
        <ConfirmButton
          title={`Remove this ${KIND_WORDS[machine.kind]}?`}
          explanation={
            machine.kind === 'cli' ? (
              <p>Its disk is deleted, with every file in it. The stored credential and the evidence stay.</p>
            ) : (
              <p>A login that uses it ends. The evidence stays.</p>
            )
          }
          confirm={MACHINE_ACTION_WORDS.destroy}
          label={`${MACHINE_ACTION_WORDS.destroy} ${name}`}
          action={async () => {
            await remove(`/api/machines/${machine.id}`);
            onChange();
          }}
        >
          {MACHINE_ACTION_WORDS.destroy}
        </ConfirmButton>
      )}
    </div>
  );
}
