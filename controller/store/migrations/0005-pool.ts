/** Machines that were booted before anybody asked for them. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`ALTER TABLE polydev.machines ADD COLUMN pooled boolean NOT NULL DEFAULT false`,
    sql`CREATE INDEX machines_pooled ON polydev.machines (realm, created_at) WHERE pooled`,
  ];
  for (const statement of statements) await statement.execute(db);
}

export const pool = { up };
