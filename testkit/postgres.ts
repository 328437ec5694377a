/** A real Postgres of its own for a test file: embedded, in a temporary directory, migrated. */
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { migrate } from '../controller/store/database.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../controller/store/embedded.ts';

export interface TestPostgres extends AsyncDisposable {
  readonly server: EmbeddedPostgres;
  /** Made with mode 0755; for sockets and files of the test beside the server's. */
  readonly directory: string;
  /** The URL of a fresh database, owned by the role `polydev`, migrated. */
  createDatabase(): Promise<string>;
}

export async function startTestPostgres(): Promise<TestPostgres> {
  const directory = await mkdtemp(path.join(tmpdir(), 'polydev-pg-'));
  await chmod(directory, 0o755);
  const server = await startEmbeddedPostgres({
    dataDir: path.join(directory, 'data'),
    socketDir: path.join(directory, 'socket'),
    durable: false,
    // Any account but root; `nobody` exists everywhere.
    ...(process.getuid?.() === 0 ? { runAs: { uid: 65_534, gid: 65_534 } } : {}),
  });
  return {
    server,
    directory,
    async createDatabase() {
      const name = `test_${randomUUID().replaceAll('-', '')}`;
      const client = new pg.Client({ connectionString: server.adminUrl });
      await client.connect();
      try {
        await client.query(`CREATE DATABASE ${name} OWNER polydev`);
      } finally {
        await client.end();
      }
      const url = new URL(server.url);
      url.pathname = `/${name}`;
      await migrate(url.href);
      return url.href;
    },
    async [Symbol.asyncDispose]() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Every place in every table of every schema where a text occurs, as `schema.table.column`. */
export async function searchDatabase(url: string, needle: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ schema: string; name: string; column: string }>(
      `SELECT table_schema AS schema, table_name AS name, column_name AS column FROM information_schema.columns
       WHERE table_schema NOT IN ('pg_catalog', 'information_schema')`,
    );
    const found: string[] = [];
    for (const { schema, name, column } of rows) {
      const quoted = [schema, name].map((part) => pg.escapeIdentifier(part)).join('.');
      // As text, and for bytes also as what they spell.
      const value = pg.escapeIdentifier(column);
      const { rowCount } = await client.query(
        `SELECT 1 FROM ${quoted} WHERE position($1 in ${value}::text) > 0
         OR (pg_typeof(${value}) = 'bytea'::regtype AND position(encode(convert_to($1, 'UTF8'), 'hex') in ${value}::text) > 0)
         LIMIT 1`,
        [needle],
      );
      if (rowCount !== 0) found.push(`${schema}.${name}.${column}`);
    }
    return found;
  } finally {
    await client.end();
  }
}
