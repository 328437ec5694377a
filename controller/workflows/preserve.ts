/** Keeps what a machine can still tell before it goes. */
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import type { AgentClient } from '../hosts/agent-client.ts';
import { keepEvidence } from '../hosts/keep-evidence.ts';
import { getMachine, recordMachineEvent } from '../store/machines.ts';
import type { MachineRow } from '../store/tables.ts';
import { readMachineEvents } from '../store/timeline.ts';
import { agentOf, type Context, pooledAgentOf } from './context.ts';

/** A machine that is in trouble must not hold up its own end. */
const DEADLINE_MS = 15_000;

/** Never throws: evidence is worth a few seconds, and nothing depends on it. */
export async function preserve(
  context: Context,
  id: MachineId,
  options: { error: PolydevError | null; screenshot: boolean },
): Promise<void> {
  try {
    const row = await getMachine(context.db, id);
    if (row === undefined) return;
    const diagnosis = await keepEvidence({
      host: context.host,
      agent: await answeringAgent(context, row),
      error: options.error,
      stamps: row.stamps,
      timeline: await readMachineEvents(context.db, id),
      screenshot: options.screenshot && row.kind === 'browser',
      signal: AbortSignal.any([context.closing, AbortSignal.timeout(DEADLINE_MS)]),
    });
    if (diagnosis === null) return;
    const { name } = diagnosis;
    context.log.warn({ machine: id, diagnosis: name }, 'diagnosed');
    context.meters.diagnosed({ name, driver: row.driver, kind: row.kind });
    await recordMachineEvent(context.db, row, {
      kind: 'diagnosis',
      name,
      detail: options.error?.code ?? null,
    });
  } catch (error) {
    if (context.closing.aborted) return;
    context.log.warn({ machine: id, code: PolydevError.from(error).code }, 'evidence was not kept');
  }
}

/** One that was being claimed when it broke has either token. */
async function answeringAgent(context: Context, { id, pooled }: MachineRow): Promise<AgentClient> {
  if (!pooled) return agentOf(context, id);
  const agent = pooledAgentOf(context, id);
  const limit = AbortSignal.any([context.closing, AbortSignal.timeout(2_000)]);
  const refused = await agent.health(limit).then(
    () => false,
    (error: unknown) => PolydevError.from(error).code === 'agent_unauthorized',
  );
  return refused ? agentOf(context, id) : agent;
}
