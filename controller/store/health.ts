/** Whether machines that are ready work. Only changes are written: a look that sees the same writes nothing. */
import type { MachineHealth } from '../../protocol/api.ts';
import type { Database, MachineRow } from './tables.ts';
import { appendEvent } from './timeline.ts';

/** Of a host, oldest first. */
export async function listReadyMachines(db: Database, hostId: string): Promise<MachineRow[]> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('hostId', '=', hostId)
    .where('state', '=', 'ready')
    .orderBy('createdAt')
    .execute();
}

/**
 * Notes what a look has seen, if the machine is still as it was when the look began. Becoming degraded, another diagnosis
 * and becoming healthy again are events of its timeline.
 * @returns `changed` when such an event was written, `noted` for the first time that it is seen to work, else `same`
 */
export async function recordHealth(
  db: Database,
  seen: Pick<MachineRow, 'id' | 'stateAt'>,
  health: MachineHealth,
): Promise<'changed' | 'noted' | 'same'> {
  return db.transaction().execute(async (tx) => {
    const row = await tx
      .selectFrom('machines')
      .select(['state', 'stateAt', 'health', 'sessionId'])
      .where('id', '=', seen.id)
      .forUpdate()
      .executeTakeFirst();
    if (row?.state !== 'ready' || row.stateAt.getTime() !== seen.stateAt.getTime()) return 'same';
    const before = row.health;
    const name = health.diagnosis?.name;
    if (before?.state === health.state && before.diagnosis?.name === name) return 'same';
    await tx
      .updateTable('machines')
      .set({ health: JSON.stringify(health) })
      .where('id', '=', seen.id)
      .execute();
    if (before === null && health.state === 'healthy') return 'noted';
    await appendEvent(tx, {
      subject: 'machine',
      id: seen.id,
      kind: 'health',
      name: health.state,
      detail: name ?? null,
      sessionId: row.sessionId,
      machineId: seen.id,
    });
    return 'changed';
  });
}
