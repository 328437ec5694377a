import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type EmbeddedPostgresOptions, startEmbeddedPostgres } from './embedded.ts';

const runAs = { uid: 65_534, gid: 65_534 };
const isRoot = process.getuid?.() === 0;

describe('the embedded Postgres', () => {
  let directory: string;
  let options: EmbeddedPostgresOptions;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'polydev-embedded-'));
    await chmod(directory, 0o755);
    options = {
      dataDir: path.join(directory, 'data'),
      socketDir: path.join(directory, 'socket'),
      durable: false,
      ...(isRoot ? { runAs } : {}),
    };
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  const query = async (url: string, text: string): Promise<unknown[]> => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return (await client.query(text)).rows;
    } finally {
      await client.end();
    }
  };
  /** A zombie has ended: where nothing reaps orphans (a bare container), it stays in the table. */
  const isAlive = (pid: number) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
    } catch {
      return false;
    }
  };

  it('keeps its data over a stop, listens on its socket only, and is nobody else’s', async () => {
    const first = await startEmbeddedPostgres(options);
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    expect(await query(first.url, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '' }]);
    expect(await query(first.url, 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user')).toEqual([
      { rolsuper: false },
    ]);
    expect((await stat(options.socketDir)).mode & 0o777).toBe(0o700);
    expect((await stat(options.dataDir)).mode & 0o077).toBe(0);
    await first.stop();
    await first.stop();
    expect(isAlive(first.pid)).toBe(false);

    // A pid file that names some other living process is stale.
    await writeFile(path.join(options.dataDir, 'postmaster.pid'), `${process.pid}\n${options.dataDir}\n`);
    const second = await startEmbeddedPostgres(options);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    await second.stop();
  });

  it('takes over from a server that still runs, and starts after kill -9 of one', async () => {
    const first = await startEmbeddedPostgres(options);
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    const second = await startEmbeddedPostgres(options);
    expect(isAlive(first.pid)).toBe(false);
    process.kill(second.pid, 'SIGKILL');
    await second.exited;
    const third = await startEmbeddedPostgres(options);
    expect(await query(third.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    await third.stop();
  });

  it('ends with the process that started it, even when that is killed', async () => {
    const module = new URL('embedded.ts', import.meta.url).href;
    const script = `const { startEmbeddedPostgres } = await import(${JSON.stringify(module)});
      const server = await startEmbeddedPostgres(${JSON.stringify(options)});
      console.log(server.pid); setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString());
    expect(isAlive(pid)).toBe(true);
    child.kill('SIGKILL');
    for (let turn = 0; turn < 400 && isAlive(pid); turn++) await sleep(25);
    expect(isAlive(pid)).toBe(false);
  });

  it('says why it does not start', async () => {
    const logFile = path.join(directory, 'postgres.log');
    const first = await startEmbeddedPostgres({ ...options, logFile });
    await first.stop();
    const settings = path.join(options.dataDir, 'postgresql.conf');
    await writeFile(settings, `${await readFile(settings, 'utf8')}\nno_such_setting = 1\n`);
    const failing = startEmbeddedPostgres({ ...options, logFile });
    await expect(failing).rejects.toMatchObject({ code: 'database_unreachable' });
    const lines = await failing.catch((error: { lines: string[] }) => error.lines);
    expect(String(lines)).toContain('no_such_setting');
  });

  it.skipIf(!isRoot)('refuses to run as root (needs root)', async () => {
    const { runAs: _, ...asRoot } = options;
    await expect(startEmbeddedPostgres(asRoot)).rejects.toMatchObject({ code: 'configuration_invalid' });
  });
});
