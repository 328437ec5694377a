/** Which version of a credential its holder has, and indexes by age for what is removed when it is old. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`ALTER TABLE polydev.credentials ADD COLUMN installed_version integer`,
    sql`CREATE INDEX timeline_by_age ON polydev.timeline (at)`,
    sql`CREATE INDEX audit_by_age ON polydev.audit (at)`,
    sql`CREATE INDEX login_sessions_by_clean_up ON polydev.login_sessions (cleaned_at)`,
    sql`CREATE INDEX login_sessions_by_browser ON polydev.login_sessions (browser_machine_id)`,
    sql`CREATE INDEX login_sessions_by_cli ON polydev.login_sessions (cli_machine_id)`,
  ];
  for (const statement of statements) await statement.execute(db);
}

export const upkeep = { up };
