import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { createHostClient } from '../hosts/host-client.ts';
import { attempt } from '../workflows/result.ts';
import { isConnectionLost } from './connection.ts';
import { openDatabase } from './database.ts';

const thrownBy = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('the loss of the database', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startTestPostgres();
  });
  afterAll(() => postgres[Symbol.asyncDispose]());

  const endConnections = async (url: string) => {
    const admin = new pg.Client({ connectionString: postgres.server.adminUrl });
    await admin.connect();
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
      new URL(url).pathname.slice(1),
    ]);
    await admin.end();
  };

  it('is told from other failures', async () => {
    const url = await postgres.createDatabase();
    await using open = await openDatabase({ url });
    const ended = await thrownBy(
      open.db.connection().execute(async (db) => {
        await endConnections(url);
        await sql`SELECT 1`.execute(db);
      }),
    );
    expect(isConnectionLost(ended)).toBe(true);
    expect(isConnectionLost(PolydevError.from(ended))).toBe(true);
    // Other connections of the pool may not have heard of their end yet.
    const wrong = async () => isConnectionLost(await thrownBy(sql`SELECT nothing`.execute(open.db)));
    await expect.poll(wrong, { timeout: 20_000 }).toBe(false);

    const directory = await mkdtemp(path.join(tmpdir(), 'polydev-lost-'));
    const nobody = `postgresql://polydev@localhost/polydev?host=${encodeURIComponent(directory)}`;
    const client = new pg.Client({ connectionString: nobody });
    expect(isConnectionLost(await thrownBy(client.connect()))).toBe(true);
    // The same error of a socket, but of the host service's.
    const host = createHostClient(path.join(directory, 'host.sock'));
    const unreachable = await thrownBy(host.list());
    expect(unreachable).toMatchObject({ code: 'host_unreachable' });
    expect(isConnectionLost(unreachable)).toBe(false);
    await rm(directory, { recursive: true });
  });

  it('does not end the process between two statements, and the step is done again', async () => {
    const url = await postgres.createDatabase();
    await using open = await openDatabase({ url });
    let attempts = 0;
    const result = await attempt(new AbortController().signal, () =>
      open.db.transaction().execute(async (db) => {
        attempts++;
        await sql`SELECT 1`.execute(db);
        if (attempts === 1) await endConnections(url);
        await sql`SELECT 2`.execute(db);
        return 'done';
      }),
    );
    expect(result).toEqual({ ok: true, value: 'done' });
    expect(attempts).toBe(2);
  });
});
