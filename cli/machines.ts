/** `./polydev machines`: list, look at, stop and remove machines. */
import { z } from 'zod';
import { Machine } from '../protocol/api.ts';
import { type Diagnosis, DiagnosisReply } from '../protocol/diagnoses.ts';
import { checklist } from '../protocol/machine.ts';
import type { Api } from './api.ts';
import { formatDuration, type Output, table } from './output.ts';

const Machines = z.object({ machines: z.array(Machine) });

export async function listMachines(
  api: Api,
  options: { all: boolean; json: boolean },
  output: Output,
): Promise<void> {
  const { machines } = await api.request('GET', '/api/machines', Machines);
  const shown = options.all ? machines : machines.filter((m) => m.state !== 'destroyed');
  if (options.json) {
    output.result(JSON.stringify(shown));
    return;
  }
  if (shown.length === 0) {
    output.result('no machines');
    return;
  }
  const rows = shown.map((m) => [m.id, m.kind, stateOf(m), m.realm, m.userId, m.error?.code ?? '']);
  output.result(table(['ID', 'KIND', 'STATE', 'REALM', 'USER', 'ERROR'], rows));
}

const stateOf = ({ state, removeAt }: Machine): string =>
  removeAt === null ? state : `${state}, kept until ${removeAt}`;

export async function showMachine(
  api: Api,
  id: string,
  options: { json: boolean },
  output: Output,
): Promise<void> {
  const machine = await api.request('GET', `/api/machines/${id}`, Machine);
  const { diagnosis } = await api.request('GET', `/api/machines/${id}/diagnosis`, DiagnosisReply);
  if (options.json) {
    output.result(JSON.stringify({ ...machine, diagnosis }));
    return;
  }
  const start = Date.parse(machine.createdAt);
  const boot = checklist(machine.kind).map((checkpoint) => {
    const stamp = machine.stamps.find((s) => s.checkpoint === checkpoint);
    return `  ${stamp ? 'x' : ' '} ${checkpoint.padEnd(12)} ${stamp ? formatDuration(Date.parse(stamp.at) - start) : ''}`;
  });
  const lines = [
    `${machine.id}  ${machine.kind}  ${machine.state}`,
    `  driver ${machine.driver ?? '-'}  image ${machine.image ?? '-'}  address ${machine.address ?? '-'}  realm ${machine.realm}`,
    'Boot (since the request):',
    ...boot,
  ];
  if (machine.removeAt !== null)
    lines.push(`kept until ${machine.removeAt}; machines rm ${machine.id} removes it`);
  if (machine.error !== null) {
    lines.push(`${machine.error.code}: ${machine.error.message}`);
    lines.push(...(machine.error.lines ?? []).map((l) => `  | ${l}`));
    lines.push(`What to do: ${machine.error.remedy}`);
  }
  if (diagnosis !== null) lines.push(...describeDiagnosis(diagnosis));
  output.result(lines.join('\n'));
}

const WHOSE = { user: 'the person', operator: 'the operator of this host', system: 'Polydev' } as const;

/** A diagnosis as a person reads it: name, lines that prove it, whose turn it is, what to do, where to read more. */
function describeDiagnosis({ name, summary, fault, remedy, lines, checkpoint }: Diagnosis): string[] {
  return [
    `Diagnosis: ${name} (last checkpoint: ${checkpoint ?? 'none'})`,
    `  ${summary}`,
    ...lines.map(({ source, text }) => `  | ${source}: ${text}`),
    `  Whose turn: ${WHOSE[fault]}. What to do: ${remedy}`,
    `  More: docs/troubleshooting-machines.md#${name}`,
  ];
}

/** Removes the machines named, or every one that is not gone yet with `--all`; says what became of each. */
export async function removeMachines(
  api: Api,
  ids: readonly string[],
  options: { all: boolean; json: boolean },
  output: Output,
): Promise<void> {
  const { machines } = await api.request('GET', '/api/machines', Machines);
  const wanted = options.all ? machines.filter((m) => m.actions.includes('destroy')).map((m) => m.id) : ids;
  for (const id of wanted) {
    const gone = await api.request('DELETE', `/api/machines/${id}`, Machine);
    output.result(options.json ? JSON.stringify(gone) : `${gone.id} ${gone.state}`);
  }
  if (wanted.length === 0) output.say('no machine to remove; name one, or use --all');
}

/** Stops, hibernates or resumes a machine, and says what it is then. */
export async function moveMachine(
  api: Api,
  action: 'stop' | 'hibernate' | 'resume',
  id: string,
  output: Output,
): Promise<void> {
  const machine = await api.request('POST', `/api/machines/${id}/${action}`, Machine);
  output.result(`${machine.id} ${machine.state}`);
}
