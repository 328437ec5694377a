/** What an operator has changed; everything else is as it is by default. */
import { type Settings, SettingsPatch } from '../../protocol/settings.ts';
import type { Database } from './tables.ts';

/** What was changed so far. A value that a later version does not know any more is left out. */
export async function readSettings(db: Database): Promise<SettingsPatch> {
  const rows = await db.selectFrom('settings').selectAll().execute();
  const found: SettingsPatch = {};
  for (const { name, value } of rows) {
    const one = SettingsPatch.safeParse({ [name]: value });
    if (one.success) Object.assign(found, one.data);
  }
  return found;
}

/** Changes what is named and leaves the rest. */
export async function changeSettings(db: Database, patch: SettingsPatch): Promise<void> {
  const entries = Object.entries(patch) as [keyof Settings, Settings[keyof Settings]][];
  await db.transaction().execute(async (tx) => {
    for (const [name, value] of entries) {
      const values = { name, value: JSON.stringify(value), changedAt: new Date() };
      await tx
        .insertInto('settings')
        .values(values)
        .onConflict((conflict) => conflict.column('name').doUpdateSet(values))
        .execute();
    }
  });
}
