/** `./polydev up`: everything a host needs, started in order, watched, and stopped in the opposite order. */
import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { mountPointsBelow } from '../host/images/mounts.ts';
import { missingOf, VM_PACKAGES } from '../host/packages.ts';
import { PolydevError } from '../protocol/errors.ts';
import { type Account, ensureAccount } from './account.ts';
import { connectApi } from './api.ts';
import { type Child, superviseChild } from './children.ts';
import { superviseDatabase } from './database.ts';
import { ensureImage, ensureVm } from './image.ts';
import { rememberUp } from './last-up.ts';
import { endLeftovers } from './leftovers.ts';
import { readLock, takeLock } from './lock.ts';
import { formatDuration, type Output } from './output.ts';
import { describeMissing, ensurePackages, RUN_PACKAGES } from './packages.ts';
import { checkPaths, checkPort, checkReadable } from './preflight.ts';
import { type Settings, settingsPaths } from './settings.ts';
import { ensureWeb } from './web.ts';

export interface UpOptions {
  readonly port: number;
  readonly bind: string;
  readonly install: boolean;
  readonly json: boolean;
  /** `none`: machines reach nothing outside, and the host's own network is not touched. */
  readonly uplink: 'nat' | 'none';
  /** Where people reach the dashboard when something stands in front, for example https://polydev.example.org. */
  readonly publicUrl?: string;
  readonly driver: 'auto' | 'firecracker' | 'namespace' | 'qemu' | 'qemu-kvm';
  /** Browser machines start as copies of one that has booted, where the driver can. */
  readonly snapshotStart: boolean;
  /** Turns the setting on. */
  readonly keepFailed?: boolean;
}

const ControllerReady = z.object({ ready: z.literal(true), url: z.string(), signInUrl: z.string() });
const HostReady = z.object({
  ready: z.literal(true),
  driver: z.object({ name: z.string(), why: z.string() }),
});

/** Runs until SIGINT or SIGTERM. Resolves after everything was stopped. */
export async function up(settings: Settings, options: UpOptions, output: Output): Promise<void> {
  const began = performance.now();
  if (process.getuid?.() !== 0) throw await notRoot(settings);
  const running = await readLock(settings);
  if (running?.url !== undefined) {
    const signInUrl = await newSignInLink(settings);
    announce({
      url: running.publicUrl ?? running.url,
      signInUrl,
      settings,
      options,
      output,
      note: `already running as process ${running.pid}`,
    });
    return;
  }

  const interrupt = new AbortController();
  const stopped = new Promise<string>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        interrupt.abort(new Error(signal));
        resolve(signal);
      });
    }
  });

  // The database and the controller run as another user and must be able to pass through what is made here.
  process.umask(0o022);
  await using cleanup = new AsyncDisposableStack();
  try {
    checkPaths(settings);
    // First of all: what follows must not happen to an instance that another `up` is starting or running.
    await mkdir(settings.dataDir, { recursive: true });
    const lock = await takeLock(settings);
    cleanup.defer(() => lock.release());
    await rememberUp(settings, options);
    const machines = options.driver.startsWith('qemu') ? [...RUN_PACKAGES, ...VM_PACKAGES] : RUN_PACKAGES;
    await ensurePackages(machines, { install: options.install, output, signal: interrupt.signal });
    const account = await ensureAccount(interrupt.signal);
    await endLeftovers(settings, account, { output, signal: interrupt.signal });
    await checkPort(options);
    await checkReadable(settings.checkout);
    cleanup.defer(() => removeRunDir(settings.runDir));
    await prepareDirectories(settings, account);
    await ensureImage(settings, { output, signal: interrupt.signal });
    if (options.driver.startsWith('qemu') || options.driver === 'firecracker')
      await ensureVm(settings, { output, signal: interrupt.signal });
    await ensureWeb(settings, { output, signal: interrupt.signal });
    const controller = await startAll(settings, options, account, output, interrupt.signal, cleanup);
    // The commands on this host speak to it directly, whatever stands in front.
    const local = options.bind === '0.0.0.0' ? '127.0.0.1' : options.bind;
    await lock.setUrls({ url: `http://${local}:${options.port}`, publicUrl: controller.ready.url });
    announce({
      ...controller.ready,
      settings,
      options,
      output,
      note: `ready after ${formatDuration(performance.now() - began)}`,
    });
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    output.say('stopped before everything was ready');
    return;
  }
  const signal = await stopped;
  output.say(`${signal}: stopping the controller, the machines and the database`);
  await cleanup.disposeAsync();
  output.say('stopped; nothing is left running');
}

/** What a person without root needs to know: why, how, and what is missing besides. */
async function notRoot(settings: Settings): Promise<PolydevError> {
  const missing = missingOf(RUN_PACKAGES);
  const { list, command } = describeMissing(missing);
  const packages =
    missing.length === 0
      ? 'All packages that it needs are installed.'
      : `These packages are missing besides, which root would install by itself:\n${list}\nor: ${command}`;
  return new PolydevError(
    'not_root',
    './polydev up needs root for namespaces, mounts and network interfaces; the database and the controller then ' +
      `run as the user "polydev". Run: sudo ${settings.checkout}/polydev up\n${packages}`,
  );
}

async function startAll(
  settings: Settings,
  options: UpOptions,
  account: Account,
  output: Output,
  signal: AbortSignal,
  cleanup: AsyncDisposableStack,
): Promise<Child<z.infer<typeof ControllerReady>>> {
  const paths = settingsPaths(settings);
  const said = (name: string) => ({
    onRestart: () => output.say(`${name} is running again`),
    onDeath: (reason: string) => output.say(`${reason}; starting it again`),
  });

  const startDatabase = async (): Promise<string> => {
    if (settings.databaseUrl !== undefined) return settings.databaseUrl;
    const postgres = await superviseDatabase(
      {
        dataDir: paths.postgresData,
        socketDir: paths.postgresSocket,
        runAs: account,
        logFile: path.join(paths.logs, 'postgres.log'),
        signal,
      },
      (text) => output.say(text),
    );
    cleanup.use(postgres);
    return postgres.url;
  };

  const startHost = async () => {
    const config = path.join(settings.runDir, 'host.json');
    await writeFile(
      config,
      JSON.stringify({
        instance: settings.instance,
        dataDir: paths.hostData,
        runDir: path.join(settings.runDir, 'host'),
        socketPath: paths.hostSocket,
        socketUid: account.uid,
        imageCacheDir: paths.images,
        uplink: options.uplink,
        driver: options.driver,
        snapshotStart: { enabled: options.snapshotStart },
        firecracker: settings.firecracker,
        jailer: settings.jailer,
        nodePath: process.execPath,
        checkout: settings.checkout,
      }),
      { mode: 0o600 },
    );
    const host = await superviseChild({
      name: 'host service',
      argv: [
        'setpriv',
        '--pdeathsig',
        'TERM',
        process.execPath,
        path.join(settings.checkout, 'host/main.ts'),
        config,
      ],
      cwd: settings.checkout,
      env: baseEnvironment(),
      logFile: path.join(paths.logs, 'host.log'),
      ready: HostReady,
      readyDeadlineMs: 60_000,
      stopDeadlineMs: 60_000,
      ...said('host service'),
    });
    cleanup.use(host);
    output.say(`machines run in the ${host.ready.driver.name} driver: ${host.ready.driver.why}`);
  };

  output.say('starting Postgres, the host service and the controller');
  // Both are awaited even when one fails: what was started must be known before it can be stopped.
  const [database, host] = await Promise.allSettled([startDatabase(), startHost()]);
  if (database.status === 'rejected') throw database.reason;
  if (host.status === 'rejected') throw host.reason;
  const databaseUrl = database.value;

  // The checkout may lie in a directory that only root can enter (/root): the controller gets its own view of it, in
  // a mount namespace that ends with it.
  const app = path.join(settings.runDir, 'app');
  await mkdir(app, { recursive: true });
  const config = path.join(settings.runDir, 'controller.json');
  await writeFile(
    config,
    JSON.stringify({
      port: options.port,
      bind: options.bind,
      databaseUrl,
      hostSocket: paths.hostSocket,
      ...masterKeyConfig(settings, paths.masterKey),
      ...(options.publicUrl === undefined ? {} : { publicUrl: options.publicUrl }),
      ...(options.keepFailed === undefined ? {} : { settings: { keepFailed: options.keepFailed } }),
      dataDir: paths.controllerData,
      webDist: path.join(app, 'web/dist'),
      instance: settings.instance,
      allowTestRealm: true,
      logLevel: 'info',
      apiKeyFile: paths.apiKey,
    }),
    { mode: 0o600 },
  );
  await chown(config, account.uid, account.gid);
  // Its copies of the machines' mounts go: they would keep the disks of machines that end in use.
  const view = `mount --bind "$1" "$2" && cd "$2" || exit 1
    for at in $(cut -d ' ' -f 5 /proc/self/mountinfo); do case "$at" in
      "$3"/* | "$4"/*) umount --lazy "$at" ;;
    esac; done
    shift 4; exec "$@"`;
  const controller = await superviseChild({
    name: 'controller',
    argv: [
      'setpriv',
      '--pdeathsig',
      'TERM',
      'unshare',
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-c',
      view,
      'sh',
      settings.checkout,
      app,
      path.join(settings.runDir, 'host'),
      paths.hostData,
      'setpriv',
      `--reuid=${account.uid}`,
      `--regid=${account.gid}`,
      '--clear-groups',
      '--no-new-privs',
      '--inh-caps=-all',
      '--bounding-set=-all',
      '--pdeathsig',
      'TERM',
      process.execPath,
      path.join(app, 'controller/main.ts'),
      config,
    ],
    cwd: '/',
    env: {
      ...baseEnvironment(),
      ...(settings.masterKey.from === 'file' ? {} : { [settings.masterKey.from]: settings.masterKey.value }),
    },
    logFile: path.join(paths.logs, 'controller.log'),
    ready: ControllerReady,
    readyDeadlineMs: 60_000,
    stopDeadlineMs: 15_000,
    ...said('controller'),
  });
  cleanup.use(controller);
  return controller;
}

function masterKeyConfig(settings: Settings, file: string): Record<string, string> {
  const { from } = settings.masterKey;
  if (from === 'file') return { masterKeyFile: file };
  return from === 'POLYDEV_MASTER_KEY' ? { masterKeyEnv: from } : { passphraseEnv: from };
}

/** Children get no more of the caller's environment than this: it may hold secrets. */
function baseEnvironment(): Record<string, string> {
  return {
    PATH: `${path.dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    LANG: 'C.UTF-8',
    HOME: '/nonexistent',
    NODE_OPTIONS: '--disable-warning=ExperimentalWarning',
  };
}

async function prepareDirectories(settings: Settings, account: Account): Promise<void> {
  const paths = settingsPaths(settings);
  const own = async (directory: string, owner: Account | undefined, mode: number) => {
    await mkdir(directory, { recursive: true });
    await chmod(directory, mode);
    if (owner !== undefined) await chown(directory, owner.uid, owner.gid);
  };
  // What an earlier run left in runDir stays: machines may be mounted there, and the host service takes them over.
  await own(settings.dataDir, undefined, 0o755);
  await own(paths.logs, undefined, 0o750);
  await own(paths.controllerData, account, 0o700);
  await own(paths.hostData, undefined, 0o700);
  await own(settings.runDir, undefined, 0o755);
  await own(path.dirname(paths.hostSocket), undefined, 0o755);
}

/**
 * Removes what this run left below /run, but nothing through a mount: machines that could not be ended keep their disks
 * mounted there, and the next `up` takes them over.
 */
export async function removeRunDir(runDir: string): Promise<void> {
  // The controller's settings hold the database's address and maybe its password.
  await rm(path.join(runDir, 'controller.json'), { force: true });
  if ((await mountPointsBelow(runDir)).length > 0) return;
  await rm(runDir, { recursive: true, force: true });
}

async function newSignInLink(settings: Settings): Promise<string> {
  const api = await connectApi(settings);
  const link = await api.request('POST', '/api/sign-in-links', z.object({ url: z.string() }));
  return link.url;
}

function announce(said: {
  url: string;
  signInUrl: string;
  settings: Settings;
  options: UpOptions;
  output: Output;
  note: string;
}): void {
  const { url, signInUrl, settings, options, output, note } = said;
  const apiKeyPath = settingsPaths(settings).apiKey;
  if (options.json) {
    output.result(JSON.stringify({ ready: true, url, signInUrl, apiKeyPath, instance: settings.instance }));
    return;
  }
  output.say(`Polydev: ${note}\n`);
  output.result(
    [
      `  Dashboard   ${url}`,
      `  Sign in     ${signInUrl}   (works once; ./polydev sign-in makes another)`,
      `  API key     ${apiKeyPath}`,
      '',
      '  Try it without an account:   ./polydev connect codex --test-idp',
    ].join('\n'),
  );
}

export { newSignInLink };
