/** Opens the database: connection pool, Kysely over the schema `polydev`, migrations. */
import { CamelCasePlugin, Kysely, PostgresDialect, sql } from 'kysely';
import { Migrator } from 'kysely/migration';
import pg from 'pg';
import { PolydevError } from '../../protocol/errors.ts';
import { first } from './migrations/0001-first.ts';
import { upkeep } from './migrations/0002-upkeep.ts';
import { life } from './migrations/0003-life.ts';
import { health } from './migrations/0004-health.ts';
import { pool as warmPool } from './migrations/0005-pool.ts';
import { revision } from './migrations/0006-revision.ts';
import type { Database, Tables } from './tables.ts';

/** All migrations, run in the order of their names. */
const MIGRATIONS = {
  '0001-first': first,
  '0002-upkeep': upkeep,
  '0003-life': life,
  '0004-health': health,
  '0005-pool': warmPool,
  '0006-revision': revision,
};

/** Any fixed number that nothing else in the database locks: "polydev" as bytes. */
const MIGRATION_LOCK = '31647313271580022';

export interface OpenDatabase extends AsyncDisposable {
  readonly db: Database;
  /** For LISTEN and for DBOS, which open their own connections. */
  readonly url: string;
}

export interface DatabaseOptions {
  /** For example `postgresql://user@localhost/db?host=/dir` (unix socket) or any Postgres URL. */
  url: string;
  /** Connections at most; default 12. */
  poolSize?: number;
  /** Errors of idle connections; the pool replaces them by itself. */
  onIdleError?: (error: Error) => void;
}

/**
 * Opens the pool and checks that the server answers. Statements are ended by the server after 15 s.
 * @throws database_unreachable
 */
export async function openDatabase(options: DatabaseOptions): Promise<OpenDatabase> {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.poolSize ?? 12,
    connectionTimeoutMillis: 10_000,
    statement_timeout: 15_000,
    query_timeout: 20_000,
    idle_in_transaction_session_timeout: 30_000,
    application_name: 'polydev',
  });
  pool.on('error', (error) => options.onIdleError?.(error));
  survive(pool);
  const db = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool }),
    plugins: [new CamelCasePlugin({ maintainNestedObjectKeys: true })],
  }).withSchema('polydev');
  try {
    await sql`SELECT 1`.execute(db);
  } catch (error) {
    await db.destroy();
    throw new PolydevError('database_unreachable', `Postgres does not answer: ${errorText(error)}`, {
      cause: error,
    });
  }
  return { db, url: options.url, [Symbol.asyncDispose]: () => db.destroy() };
}

/**
 * The pool hears errors of idle connections only. One that breaks between two queries of a transaction would end this
 * process; the next query on it fails anyway.
 */
function survive(pool: pg.Pool): void {
  pool.on('connect', (client) => client.on('error', () => undefined));
}

/**
 * Brings the schema `polydev` up to date; one controller at a time, by an advisory lock. Idempotent.
 * @throws internal when a migration fails; nothing of it stays
 */
export async function migrate(url: string): Promise<void> {
  const pool = new pg.Pool({ connectionString: url, max: 3, connectionTimeoutMillis: 10_000 });
  pool.on('error', () => undefined);
  survive(pool);
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  try {
    // Kysely locks while it migrates, but not while it creates its schema and bookkeeping tables.
    await db.connection().execute(async (holder) => {
      await sql`SET lock_timeout = '60s'`.execute(holder);
      await sql`SELECT pg_advisory_lock(${sql.lit(MIGRATION_LOCK)}::bigint)`.execute(holder);
      try {
        const migrator = new Migrator({
          db,
          provider: { getMigrations: async () => MIGRATIONS },
          migrationTableSchema: 'polydev',
        });
        const { error } = await migrator.migrateToLatest();
        if (error !== undefined) throw error;
      } finally {
        await sql`SELECT pg_advisory_unlock(${sql.lit(MIGRATION_LOCK)}::bigint)`.execute(holder);
      }
    });
  } catch (error) {
    throw new PolydevError('internal', `the database migration failed: ${errorText(error)}`, {
      cause: error,
    });
  } finally {
    await db.destroy();
  }
}

function errorText(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(errorText).join('; ');
  return error instanceof Error ? error.message : String(error);
}
