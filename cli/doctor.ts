/** `./polydev doctor`: what this host lacks, what was seen, and the command that mends it. */
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { openDatabase } from '../controller/store/database.ts';
import { startEmbeddedPostgres } from '../controller/store/embedded.ts';
import { attempt, type Check, fail, ok, report, unknown, warn } from '../host/doctor/check.ts';
import { examineHost } from '../host/doctor/host.ts';
import type { CheckState } from '../protocol/doctor.ts';
import { findAccount } from './account.ts';
import { type LastUp, readLastUp } from './last-up.ts';
import { type Lock, readLock } from './lock.ts';
import type { Output } from './output.ts';
import { checkPort } from './preflight.ts';
import { type Settings, settingsPaths } from './settings.ts';

const DEADLINE_MS = 120_000;

export interface DoctorOptions {
  readonly json: boolean;
  /** As they would be given to `up`; absent: as they were given the last time. */
  readonly port?: number;
  readonly bind?: string;
}

/** Returns the exit code: 1 when a machine could not start here, or Polydev itself. */
export async function doctor(
  settings: Settings,
  options: DoctorOptions,
  output: Output,
  signal: AbortSignal,
): Promise<number> {
  const paths = settingsPaths(settings);
  const lock = await readLock(settings);
  const running = lock?.url !== undefined;
  const last = await readLastUp(settings);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
  const checks = await examineHost(
    {
      checkout: settings.checkout,
      imageCacheDir: paths.images,
      dataDir: paths.hostData,
      instance: settings.instance,
      runDir: path.dirname(paths.hostSocket),
      sharedDir: '/run/polydev-shared',
      running,
      uplink: last.uplink,
      driver: last.driver,
    },
    limit,
  );
  checks.push(
    ...(await attempt('port', './polydev up --port 4001', () => port(lock, { ...last, ...chosen(options) }))),
    ...(await attempt('postgres', 'read the evidence', () => postgres(settings, running, limit))),
    ...(await attempt('master key', 'read the evidence', () => masterKey(settings))),
  );
  const found = report(checks);
  output.result(options.json ? JSON.stringify(found) : describe(checks));
  return found.ok ? 0 : 1;
}

const chosen = ({ port, bind }: DoctorOptions): Partial<LastUp> => ({
  ...(port === undefined ? {} : { port }),
  ...(bind === undefined ? {} : { bind }),
});

async function port(lock: Lock | undefined, where: Pick<LastUp, 'port' | 'bind'>): Promise<Check> {
  const name = 'port';
  if (lock?.url !== undefined && Number(new URL(lock.url).port) === where.port) {
    return ok(name, `${where.port} is used by this instance, process ${lock.pid}`);
  }
  try {
    await checkPort(where);
    return ok(name, `${where.port} of ${where.bind} is free`);
  } catch (error) {
    const other = `./polydev up --port ${where.port + 1}`;
    return fail(name, error instanceof Error ? error.message : String(error), other);
  }
}

/** The database that `up` would use: an external one must answer, the embedded one must come up, in a scratch folder. */
async function postgres(settings: Settings, running: boolean, signal: AbortSignal): Promise<Check> {
  const name = 'postgres';
  if (settings.databaseUrl !== undefined) {
    await using _open = await openDatabase({ url: settings.databaseUrl, poolSize: 1 });
    return ok(name, 'the server of DATABASE_URL answers');
  }
  if (running) return ok(name, 'runs');
  if (process.getuid?.() !== 0)
    return unknown(name, 'not tried: it runs as another user, which needs root', 'sudo ./polydev doctor');
  const account = await findAccount(signal);
  // `up` makes the user; a trial must not.
  const runAs = account ?? { uid: 65_534, gid: 65_534 };
  const folder = await mkdtemp('/var/tmp/polydev-doctor-');
  try {
    // The server must be able to pass through.
    await chmod(folder, 0o711);
    await using made = new AsyncDisposableStack();
    const began = performance.now();
    const server = await startEmbeddedPostgres({
      dataDir: path.join(folder, 'data'),
      socketDir: path.join(folder, 's'),
      runAs,
      durable: false,
      signal,
    });
    made.defer(() => server.stop());
    return ok(name, `the embedded server was made and started (${Math.round(performance.now() - began)} ms)`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Whoever can read the key can open every stored credential. */
async function masterKey(settings: Settings): Promise<Check> {
  const name = 'master key';
  const { from } = settings.masterKey;
  if (from !== 'file') return ok(name, `from the environment, ${from}`);
  const { masterKey: file } = settingsPaths(settings);
  const found = await stat(file).catch(() => undefined);
  if (found === undefined) return ok(name, `${file} is made at the first start`);
  const open = (found.mode & 0o077) !== 0;
  const account = await findAccount(AbortSignal.timeout(10_000));
  const mode = (found.mode & 0o777).toString(8).padStart(4, '0');
  const evidence = `${file} has mode ${mode} and belongs to user ${found.uid}`;
  if (open) return warn(name, `${evidence}: others can read it`, `chmod 0600 ${file}`);
  if (account !== undefined && found.uid !== account.uid) {
    return fail(name, `${evidence}: the controller cannot read it`, `chown polydev:polydev ${file}`);
  }
  return ok(name, evidence);
}

function describe(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, state, evidence, remedy }) => [
    `${state.padEnd(7)}  ${name.padEnd(width)}  ${evidence}`,
    ...(remedy === null
      ? []
      : [`${' '.repeat(width + 11)}${state === 'ok' ? 'to have it' : 'mend'}: ${remedy}`]),
  ]);
  const count = (wanted: CheckState): number => checks.filter(({ state }) => state === wanted).length;
  const sum = `${count('ok')} ok, ${count('warn')} warnings, ${count('fail')} failed, ${count('unknown')} not known`;
  return [...lines, `doctor: ${sum}`].join('\n');
}
