/** What an operator sees and changes, as `api/` uses it. */
import type { Operation } from '../services.ts';
import { listKept, toMachine } from '../store/machines.ts';
import { listOrphans } from '../store/orphans.ts';
import { changeSettings } from '../store/settings.ts';
import { readStatistics } from '../store/statistics.ts';
import { type Context, readOperatorSettings } from './context.ts';

export function createOperation(context: Context): Operation {
  const { db } = context;
  return {
    statistics: (from, stepBuckets) => readStatistics(db, from, stepBuckets),
    settings: () => readOperatorSettings(context),
    async changeSettings(patch) {
      await changeSettings(db, patch);
      return readOperatorSettings(context);
    },
    async cleanUp() {
      const settings = await readOperatorSettings(context);
      const kept = (await listKept(db)).map(toMachine).reverse();
      const orphans = (await listOrphans(db)).map(({ id, hostId, seenAt }) => ({
        id,
        hostId,
        seenAt: seenAt.toISOString(),
        removeAt: new Date(seenAt.getTime() + settings.orphanGraceSeconds * 1000).toISOString(),
      }));
      return { settings, kept, orphans };
    },
  };
}
