/** The real controller process over a real Postgres, without a host service. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './store/embedded.ts';

const isRoot = process.getuid?.() === 0;
/** `nobody`: Postgres refuses to run as root. */
const NOBODY = { uid: 65_534, gid: 65_534 };

let folder: string;
let postgres: EmbeddedPostgres;
const children: ChildProcess[] = [];

beforeAll(async () => {
  // Short: the path of a unix socket has to fit in 107 bytes.
  folder = await mkdtemp('/tmp/pdctl-');
  await chmod(folder, 0o755);
  postgres = await startEmbeddedPostgres({
    dataDir: path.join(folder, 'pg'),
    socketDir: path.join(folder, 's'),
    durable: false,
    ...(isRoot ? { runAs: NOBODY } : {}),
  });
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});
afterAll(async () => {
  await postgres.stop();
  await rm(folder, { recursive: true, force: true });
});

async function configure(change: object = {}): Promise<{ file: string; dataDir: string }> {
  const dataDir = path.join(folder, 'data');
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const config = {
    port: 0,
    bind: '127.0.0.1',
    databaseUrl: postgres.url,
    hostSocket: path.join(folder, 'no-host.sock'),
    masterKeyFile: path.join(dataDir, 'master-key'),
    dataDir,
    webDist: path.join(folder, 'web'),
    instance: 'test',
    allowTestRealm: true,
    logLevel: 'info',
    apiKeyFile: path.join(dataDir, 'api-key'),
    allowRoot: true,
    ...change,
  };
  const file = path.join(folder, 'config.json');
  await writeFile(file, JSON.stringify(config), { mode: 0o600 });
  return { file, dataDir };
}

interface Started {
  child: ChildProcess;
  url: string;
  signInUrl: string;
  log(): string;
}

async function launch(file: string, env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'main.ts'), file], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let log = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  return { child, log: () => log };
}

async function started(file: string, env?: Record<string, string>): Promise<Started> {
  const { child, log } = await launch(file, env);
  if (child.stdout === null) throw new Error('no stdout');
  const lines = createInterface({ input: child.stdout });
  const line = await Promise.race([
    once(lines, 'line').then(([first]) => String(first)),
    once(child, 'exit').then(([code]) => {
      throw new Error(`ended with ${String(code)}: ${log()}`);
    }),
  ]);
  const { url, signInUrl } = JSON.parse(line) as { url: string; signInUrl: string };
  return { child, url, signInUrl, log };
}

async function stopped(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
  child.kill(signal);
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

describe('the controller process', () => {
  it('starts over an empty database, lets its operator in by key and link, and stops on SIGTERM', async () => {
    const { file, dataDir } = await configure();
    const { child, url, signInUrl, log } = await started(file);
    const key = (await readFile(path.join(dataDir, 'api-key'), 'utf8')).trim();
    expect((await stat(path.join(dataDir, 'api-key'))).mode & 0o777).toBe(0o600);
    const headers = { authorization: `Bearer ${key}` };
    expect(await (await fetch(`${url}/api/me`, { headers })).json()).toMatchObject({ role: 'operator' });

    const signedIn = await fetch(signInUrl, { redirect: 'manual' });
    expect(signedIn.status).toBe(303);
    const cookie = signedIn.headers.get('set-cookie')?.split(';')[0] ?? '';
    expect((await fetch(`${url}/api/me`, { headers: { cookie } })).status).toBe(200);
    expect((await fetch(signInUrl, { redirect: 'manual' })).status).toBe(401);

    const out = await fetch(`${url}/api/sign-out`, {
      method: 'POST',
      headers: { cookie, 'sec-fetch-site': 'same-origin' },
    });
    expect(out.status).toBe(204);
    expect((await fetch(`${url}/api/me`, { headers: { cookie } })).status).toBe(401);
    const link = await fetch(`${url}/api/sign-in-links`, { method: 'POST', headers });
    expect((await fetch(((await link.json()) as { url: string }).url, { redirect: 'manual' })).status).toBe(
      303,
    );

    const ready = await fetch(`${url}/ready`);
    expect(ready.status).toBe(503);
    const { parts } = (await ready.json()) as { parts: { name: string; problem: string | null }[] };
    expect(parts.find(({ name }) => name === 'database')?.problem).toBeNull();
    expect(parts.find(({ name }) => name === 'host_service')?.problem).toContain('host_unreachable');

    const events = await fetch(`${url}/metrics`, { headers });
    expect(await events.text()).toContain('polydev_http_request_seconds');
    expect(await stopped(child)).toBe(0);
    for (const secret of [
      key,
      new URL(signInUrl).searchParams.get('token') ?? '',
      cookie.split('=')[1] ?? '',
    ]) {
      expect(secret.length).toBeGreaterThan(20);
      expect(log()).not.toContain(secret);
    }
  });

  it('keeps its key over a restart and makes another link', async () => {
    const { file, dataDir } = await configure();
    const first = await started(file);
    const key = await readFile(path.join(dataDir, 'api-key'), 'utf8');
    expect(await stopped(first.child, 'SIGINT')).toBe(0);
    const second = await started(file);
    expect(await readFile(path.join(dataDir, 'api-key'), 'utf8')).toBe(key);
    expect(second.signInUrl.split('?')[1]).not.toBe(first.signInUrl.split('?')[1]);
    await stopped(second.child);
    await writeFile(path.join(dataDir, 'api-key'), 'pdk_of-another-database\n');
    const third = await started(file);
    expect(await readFile(path.join(dataDir, 'api-key'), 'utf8')).toMatch(/^pdk_[\w-]{43}\n$/);
    await stopped(third.child);
  });

  it.each([
    [
      'no database',
      { databaseUrl: 'postgresql://u:s3cret@localhost/x?host=/nonexistent' },
      {},
      'database_unreachable',
    ],
    ['a missing key', { masterKeyFile: undefined, masterKeyEnv: 'NO_KEY' }, {}, 'vault_key_missing'],
    ['an unknown setting', { surprise: true }, {}, 'configuration_invalid'],
  ])('ends with the reason on stderr: %s', async (_name, change, env, code) => {
    const { file } = await configure(change);
    const { child, log } = await launch(file, env);
    expect((await once(child, 'exit'))[0]).toBe(1);
    expect(log()).toMatch(new RegExp(`"code":"(${code})"`));
    expect(log()).not.toContain('s3cret');
  });

  it.skipIf(!isRoot)('refuses to run as root (needs root to try)', async () => {
    const { file } = await configure({ allowRoot: undefined });
    const { child, log } = await launch(file);
    expect((await once(child, 'exit'))[0]).toBe(1);
    expect(log()).toContain('does not run as root');
  });
});
