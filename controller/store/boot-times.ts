/** What boots took before: the record from which deadlines are made. It is the timeline itself; nothing else is kept. */
import { sql } from 'kysely';
import type { Checkpoint, MachineKind } from '../../protocol/machine.ts';
import type { Database } from './tables.ts';

export interface Measured {
  /** Boots that reached the checkpoint, the newest `NEWEST` at most. */
  readonly boots: number;
  /** Of 20 boots 19 reached it within this time from the request of the start, ms. */
  readonly p95Ms: number;
}

/** Boots looked at: enough for a 95th percentile, and new enough to follow a host that gets slower. */
const NEWEST = 100;

/** For each checkpoint that machines of this kind have reached under this driver on this host. */
export async function readBootTimes(
  db: Database,
  machines: { hostId: string; driver: string; kind: MachineKind },
): Promise<Map<Checkpoint, Measured>> {
  const { rows } = await sql<{ name: Checkpoint; boots: number; p95Ms: number }>`
    SELECT name, count(*)::int AS boots, percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
    FROM (
      SELECT t.name, t.duration_ms, row_number() OVER (PARTITION BY t.name ORDER BY t.seq DESC) AS age
      FROM polydev.timeline t JOIN polydev.machines m ON m.id = t.machine_id
      WHERE t.kind = 'checkpoint' AND t.duration_ms IS NOT NULL
        AND m.host_id = ${machines.hostId} AND m.driver = ${machines.driver} AND m.kind = ${machines.kind}
    ) newest
    WHERE age <= ${NEWEST}
    GROUP BY name
  `.execute(db);
  return new Map(rows.map(({ name, boots, p95Ms }) => [name, { boots, p95Ms }]));
}
