/** Sets DBOS up: the same Postgres (schema `dbos`), our log, and an application version that only changed flows change. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { DBOS } from '@dbos-inc/dbos-sdk';
import pg from 'pg';
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

/**
 * What a killed Postgres looks like on its unix socket, until the next one listens there. DBOS repeats what broke for other
 * reasons of a lost connection, but takes these for failures, and leaves the workflow as it is until the next start.
 */
const LOST = new Set(['ENOENT', 'EPIPE']);

class EngineSocket extends Socket {
  override emit(event: string | symbol, ...args: unknown[]): boolean {
    const [error] = args;
    if (event === 'error' && error instanceof Error && 'code' in error && LOST.has(String(error.code))) {
      error.code = 'ECONNRESET';
    }
    return super.emit(event, ...args);
  }
}

/**
 * To be called before workflows are registered and DBOS is launched.
 * @returns to be disposed of after DBOS was shut down
 */
export function configureEngine(options: EngineOptions): AsyncDisposable {
  const log = options.log.child({ part: 'dbos' });
  const pool = new pg.Pool({
    connectionString: options.databaseUrl,
    max: 8,
    application_name: 'polydev-dbos',
    idle_in_transaction_session_timeout: 60_000,
    stream: () => new EngineSocket(),
  });
  pool.on('error', (error) => log.warn({ err: error }, 'an idle database connection was lost'));
  pool.on('connect', (client) => client.on('error', () => undefined));
  DBOS.setConfig({
    name: 'polydev',
    systemDatabaseUrl: options.databaseUrl,
    systemDatabaseSchemaName: 'dbos',
    systemDatabasePool: pool,
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
  return { [Symbol.asyncDispose]: () => pool.end() };
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
