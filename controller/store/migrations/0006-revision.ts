/** How often a machine has changed its state: what was asked for before its last change may be outdated. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE polydev.machines ADD COLUMN revision integer NOT NULL DEFAULT 0`.execute(db);
}

export const revision = { up };
