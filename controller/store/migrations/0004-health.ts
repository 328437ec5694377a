/** Whether a ready machine works, and what its boots took, quickly found. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`ALTER TABLE polydev.machines ADD COLUMN health jsonb`,
    sql`ALTER TABLE polydev.timeline DROP CONSTRAINT timeline_kind_check`,
    sql`ALTER TABLE polydev.timeline ADD CONSTRAINT timeline_kind_check
      CHECK (kind IN ('state', 'checkpoint', 'step', 'diagnosis', 'health'))`,
    sql`CREATE INDEX timeline_of_checkpoints ON polydev.timeline (name, seq DESC) WHERE kind = 'checkpoint'`,
  ];
  for (const statement of statements) await statement.execute(db);
}

export const health = { up };
