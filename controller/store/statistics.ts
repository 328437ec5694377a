/** Counts for the metrics, made by the database. */
import { sql } from 'kysely';
import type { DiagnosisName } from '../../protocol/diagnoses.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import type { Statistics } from '../services.ts';
import type { Database } from './tables.ts';

const CODE = sql<ErrorCode | 'none'>`coalesce(error->>'code', 'none')`;

/** Long enough for a transaction that was under way to be seen: what ended is counted that much later, ms. */
const SETTLE_MS = 2_000;

/**
 * What there is now, and what was over between `from` (inclusive) and the `upTo` that is given, to go on from.
 * @param stepBuckets upper bounds in seconds
 */
export async function readStatistics(
  db: Database,
  from: Date,
  stepBuckets: readonly number[],
): Promise<Statistics> {
  const { rows } = await sql<{ upTo: Date }>`
    SELECT greatest(${from}::timestamptz, clock_timestamp() - ${SETTLE_MS} * interval '1 ms') AS up_to
  `.execute(db);
  const upTo = rows[0]?.upTo ?? from;
  const count = sql<number>`count(*)::int`.as('count');
  const within = stepBuckets.map((seconds) => sql`count(*) FILTER (WHERE duration_ms <= ${seconds * 1000})`);
  const [active, machines, degraded, ended, steps] = await Promise.all([
    db
      .selectFrom('loginSessions')
      .select(['state', count])
      .where('endedAt', 'is', null)
      .groupBy('state')
      .execute(),
    db
      .selectFrom('machines')
      .select(['kind', 'state', count])
      .where('endedAt', 'is', null)
      .groupBy(['kind', 'state'])
      .execute(),
    db
      .selectFrom('machines')
      .select([sql<DiagnosisName>`health->'diagnosis'->>'name'`.as('diagnosis'), 'kind', count])
      .where('state', '=', 'ready')
      .where(sql<string>`health->>'state'`, '=', 'degraded')
      .groupBy([sql`1`, 'kind'])
      .execute(),
    db
      .selectFrom('loginSessions')
      .select(['provider', 'realm', 'state', CODE.as('code'), count])
      .where('cleanedAt', '>=', from)
      .where('cleanedAt', '<', upTo)
      .groupBy(['provider', 'realm', 'state', CODE])
      .execute(),
    db
      .selectFrom('timeline')
      .innerJoin('loginSessions', 'loginSessions.id', 'timeline.sessionId')
      .select([
        'timeline.name as step',
        count,
        sql<number>`sum(duration_ms) / 1000`.as('seconds'),
        sql<number[]>`ARRAY[${sql.join(within)}]::int[]`.as('within'),
      ])
      .where('timeline.kind', '=', 'step')
      .where('timeline.durationMs', 'is not', null)
      .where('loginSessions.cleanedAt', '>=', from)
      .where('loginSessions.cleanedAt', '<', upTo)
      .groupBy('timeline.name')
      .execute(),
  ]);
  return { active, machines, degraded, ended, steps, upTo };
}
