/** Sets DBOS up: the same Postgres (schema `dbos`), our log, and an application version that only changed flows change. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { DBOS } from '@dbos-inc/dbos-sdk';
import type { Logger } from 'pino';

export interface EngineOptions {
  databaseUrl: string;
  /** Stable over restarts and different for each controller on one database: what a killed one left, it takes up. */
  executorId: string;
  log: Logger;
}

/** A digest of the files that fix the order of steps. */
export function applicationVersion(): string {
  const digest = createHash('sha256');
  for (const file of ['login.ts', 'machine-flows.ts']) {
    digest.update(readFileSync(new URL(file, import.meta.url)));
  }
  return digest.digest('hex').slice(0, 16);
}

/** To be called before workflows are registered and DBOS is launched. */
export function configureEngine(options: EngineOptions): void {
  const log = options.log.child({ part: 'dbos' });
  DBOS.setConfig({
    name: 'polydev',
    systemDatabaseUrl: options.databaseUrl,
    systemDatabaseSchemaName: 'dbos',
    systemDatabasePoolSize: 8,
    executorID: options.executorId,
    applicationVersion: applicationVersion(),
    enableOTLP: false,
    tracingEnabled: false,
    // Its `info` tells of every start and step; we have our own timeline.
    logger: {
      debug: () => undefined,
      info: (entry) => log.debug({ entry: String(entry) }),
      warn: (entry) => log.warn({ entry: String(entry) }),
      error: (entry, metadata) => log.error({ entry: String(entry), stack: metadata?.stack }),
    },
  });
}

/** Those that nothing goes on with. */
const OVER = ['SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'] as const;

/**
 * Deletes, in batches, DBOS's own rows of workflows that were over before `cutoff`. Their ids must not be used again.
 * @returns how many workflows went; stops between batches when the signal fires
 */
export async function pruneWorkflows(cutoff: Date, signal: AbortSignal, batch = 500): Promise<number> {
  let gone = 0;
  while (!signal.aborted) {
    const old = await DBOS.listWorkflows({
      status: [...OVER],
      completedBefore: cutoff.toISOString(),
      limit: batch,
      loadInput: false,
      loadOutput: false,
    });
    if (old.length === 0) break;
    await DBOS.deleteWorkflows(old.map(({ workflowID }) => workflowID));
    gone += old.length;
  }
  return gone;
}
