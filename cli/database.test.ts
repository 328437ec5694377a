import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { expect, it } from 'vitest';
import { superviseDatabase } from './database.ts';

it('starts a Postgres that was killed again, at the same address, and ends it for good', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'polydev-database-'));
  await chmod(directory, 0o755);
  const said: string[] = [];
  const dataDir = path.join(directory, 'data');
  const answer = async (url: string): Promise<unknown> => {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return (await client.query('SELECT 1 AS one')).rows[0];
    } catch (error) {
      return error;
    } finally {
      await client.end().catch(() => undefined);
    }
  };
  try {
    const database = await superviseDatabase(
      {
        dataDir,
        socketDir: path.join(directory, 'socket'),
        durable: false,
        signal: AbortSignal.timeout(60_000),
        ...(process.getuid?.() === 0 ? { runAs: { uid: 65_534, gid: 65_534 } } : {}),
      },
      (text) => said.push(text),
    );
    const pid = async () =>
      Number((await readFile(path.join(dataDir, 'postmaster.pid'), 'utf8')).split('\n')[0]);
    process.kill(await pid(), 'SIGKILL');
    await expect.poll(() => said.at(-1), { timeout: 30_000 }).toBe('Postgres is running again');
    expect(await answer(database.url)).toEqual({ one: 1 });
    await database[Symbol.asyncDispose]();
    expect(await answer(database.url)).toBeInstanceOf(Error);
    expect(said).toHaveLength(2);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}, 60_000);
