/**
 * The controller's entry point: `node controller/main.ts <config.json>`. Puts store, vault, workflows and API together,
 * prints one JSON line to stdout when it serves, logs to stderr, and stops within 5 s of SIGTERM.
 */
import { randomUUID } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import path from 'node:path';
import { type Logger, pino } from 'pino';
import { PolydevError } from '../protocol/errors.ts';
import { providers } from '../providers/index.ts';
import { createAccess, createAuditLog, makeApiKey } from './api/access.ts';
import { buildApi } from './api/app.ts';
import { type Access, OPERATOR } from './api/caller.ts';
import { createLogger } from './api/logging.ts';
import { signInPath } from './api/routes/access.ts';
import { type Config, readConfig } from './config.ts';
import { createHostClient } from './hosts/host-client.ts';
import { migrate, openDatabase } from './store/database.ts';
import { listSeenHosts } from './store/hosts.ts';
import { changeSettings } from './store/settings.ts';
import type { Database } from './store/tables.ts';
import {
  type MasterKey,
  masterKeyFromFile,
  masterKeyFromPassphrase,
  masterKeyFromValue,
} from './vault/master-key.ts';
import { createVault } from './vault/vault.ts';
import { createServices } from './workflows/services.ts';

const STOP_DEADLINE_MS = 5_000;

interface Controller extends AsyncDisposable {
  /** Where the dashboard is; without a slash at the end. */
  readonly url: string;
  /** A fresh link that signs the operator in, once. */
  readonly signInUrl: string;
}

/**
 * Starts everything and listens.
 * @throws database_unreachable, vault_key_missing, configuration_invalid; what was started is stopped again
 */
async function start(config: Config, log: Logger): Promise<Controller> {
  await using starting = new AsyncDisposableStack();
  // Opened first: a server that does not answer is then named as that, not as a failed migration.
  const { db } = starting.use(
    await openDatabase({
      url: config.databaseUrl,
      onIdleError: (error) => log.warn({ err: error }, 'an idle database connection was lost'),
    }),
  );
  await migrate(config.databaseUrl);
  if (config.settings !== undefined) await changeSettings(db, config.settings);
  const vault = await createVault(db, await masterKeyOf(config));
  const services = starting.use(
    await createServices({
      db,
      databaseUrl: config.databaseUrl,
      vault,
      hostClient: createHostClient(config.hostSocket),
      log,
      ...(config.masterKeyFile === undefined ? {} : { masterKeyFile: config.masterKeyFile }),
      executorId: `controller-${config.instance}`,
    }),
  );
  const access = createAccess(db);
  await ensureApiKey(db, access, config.apiKeyFile, log);
  const publicUrl = config.publicUrl === undefined ? undefined : new URL(config.publicUrl);
  const app = await buildApi({
    services,
    access,
    audit: createAuditLog(db),
    providers: Object.values(providers),
    ticketKey: vault.deriveKey('tickets'),
    readiness: [{ name: 'database', check: () => databaseProblem(db, log) }],
    ...(publicUrl === undefined ? {} : { publicUrl }),
    webDist: config.webDist,
    allowTestRealm: config.allowTestRealm,
    logger: log,
  });
  starting.defer(() => app.close());
  await app.listen({ host: config.bind, port: config.port });
  const address = app.server.address();
  const port = typeof address === 'object' && address !== null ? address.port : config.port;
  const url = publicUrl?.origin ?? localUrl(config.bind, port);
  const { token } = await access.createSignInLink(OPERATOR, 'operator');
  const running = starting.move();
  return {
    url,
    signInUrl: new URL(signInPath(token), url).href,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function databaseProblem(db: Database, log: Logger): Promise<string | undefined> {
  try {
    await listSeenHosts(db);
    return undefined;
  } catch (error) {
    log.warn({ err: error }, 'the database does not answer');
    return 'Postgres does not answer';
  }
}

/** An address that a browser on this computer can open. */
function localUrl(bind: string, port: number): string {
  const any = bind === '0.0.0.0' || bind === '::';
  const host = any ? '127.0.0.1' : isIPv6(bind) ? `[${bind}]` : bind;
  return `http://${host}:${port}`;
}

async function masterKeyOf(config: Config): Promise<MasterKey> {
  if (config.masterKeyFile !== undefined) return masterKeyFromFile(config.masterKeyFile);
  const name = config.masterKeyEnv ?? config.passphraseEnv ?? '';
  const value = process.env[name];
  if (value === undefined) throw new PolydevError('vault_key_missing', `the environment has no ${name}`);
  // Child processes and diagnostic reports would show it.
  delete process.env[name];
  return config.masterKeyEnv === undefined
    ? masterKeyFromPassphrase(value, path.join(config.dataDir, 'master-key.salt'))
    : masterKeyFromValue(value);
}

/** Writes an operator's key at the first start, and a new one when the file's does not fit this database. */
async function ensureApiKey(db: Database, access: Access, file: string, log: Logger): Promise<void> {
  const present = await readFile(file, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new PolydevError('configuration_invalid', `${file} cannot be read`, { cause: error });
  });
  if (present !== undefined && (await access.apiKey(present.trim())) !== undefined) return;
  const key = await makeApiKey(db, { userId: OPERATOR, role: 'operator', name: 'first start' });
  const fresh = `${file}.${randomUUID()}.new`;
  await writeFile(fresh, `${key}\n`, { mode: 0o600, flag: 'wx' });
  await rename(fresh, file);
  log.info({ file }, 'an API key of the operator was written');
}

async function main(): Promise<void> {
  process.umask(0o077);
  const stderr = pino.destination({ fd: 2, sync: true });
  let log = createLogger({ level: 'info', destination: stderr });
  const die = (message: string) => (thrown: unknown) => {
    const code = thrown instanceof PolydevError ? thrown.code : 'internal';
    log.fatal({ err: thrown, code }, message);
    process.exit(1);
  };
  process.on('uncaughtException', die('an exception was not handled'));
  process.on('unhandledRejection', die('a rejection was not handled'));
  const stopping = Promise.withResolvers<NodeJS.Signals>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      stopping.resolve(signal);
      setTimeout(
        () => die('stopping took too long')(new Error(`${signal} was not obeyed in time`)),
        STOP_DEADLINE_MS,
      ).unref();
    });
  }

  try {
    const file = process.argv[2];
    if (file === undefined) {
      throw new PolydevError(
        'configuration_invalid',
        'name the configuration: controller/main.ts <config.json>',
      );
    }
    const config = await readConfig(file);
    log = createLogger({ level: config.logLevel, destination: stderr });
    if (process.getuid?.() === 0 && config.allowRoot !== true) {
      throw new PolydevError(
        'configuration_invalid',
        'the controller needs no root and does not run as root; start it as another user, or set allowRoot',
      );
    }
    await using controller = await start(config, log);
    const { url, signInUrl } = controller;
    process.stdout.write(`${JSON.stringify({ ready: true, url, signInUrl })}\n`);
    log.info({ url }, 'ready');
    log.info({ signal: await stopping.promise }, 'stopping');
  } catch (error) {
    die('the controller cannot run')(error);
  }
  log.info('stopped');
  // The workflow engine may hold timers of workflows that the next start takes up.
  process.exit(0);
}

await main();
