/** Machines that stay for a while, settings that an operator changes while everything runs, machines nobody knows. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`ALTER TABLE polydev.machines ADD COLUMN remove_at timestamptz(3)`,
    sql`ALTER TABLE polydev.machines ADD COLUMN used_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()`,
    sql`CREATE INDEX machines_by_removal ON polydev.machines (remove_at) WHERE remove_at IS NOT NULL`,
    sql`ALTER TABLE polydev.login_sessions ADD COLUMN keep_failed boolean`,
    sql`CREATE TABLE polydev.settings (
      name text PRIMARY KEY,
      value jsonb NOT NULL,
      changed_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
    )`,
    sql`CREATE TABLE polydev.orphans (
      id text NOT NULL,
      host_id text NOT NULL,
      seen_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      PRIMARY KEY (host_id, id)
    )`,
  ];
  for (const statement of statements) await statement.execute(db);
}

export const life = { up };
