/** Who did what to which object. Append only. */
import type { Database } from './tables.ts';

export interface AuditEntry {
  /** A user id, an API key id or `system`. */
  who: string;
  /** Noun and verb, for example `credential.install`. */
  action: string;
  /** The id of the object. Never a secret. */
  target: string;
}

export async function recordAudit(db: Database, entry: AuditEntry): Promise<void> {
  await db.insertInto('audit').values(entry).execute();
}
