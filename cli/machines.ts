/** `./polydev machines`: list, look at, stop and remove machines. */
import { z } from 'zod';
import { Machine } from '../protocol/api.ts';
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
  const rows = shown.map((m) => [m.id, m.kind, m.state, m.realm, m.userId, m.error?.code ?? '']);
  output.result(table(['ID', 'KIND', 'STATE', 'REALM', 'USER', 'ERROR'], rows));
}

export async function showMachine(
  api: Api,
  id: string,
  options: { json: boolean },
  output: Output,
): Promise<void> {
  const machine = await api.request('GET', `/api/machines/${id}`, Machine);
  if (options.json) {
    output.result(JSON.stringify(machine));
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
  if (machine.error !== null) {
    lines.push(`${machine.error.code}: ${machine.error.message}`);
    lines.push(...(machine.error.lines ?? []).map((l) => `  | ${l}`));
    lines.push(`What to do: ${machine.error.remedy}`);
  }
  output.result(lines.join('\n'));
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

export async function stopMachine(api: Api, id: string, output: Output): Promise<void> {
  const machine = await api.request('POST', `/api/machines/${id}/stop`, Machine);
  output.result(`${machine.id} ${machine.state}`);
}
