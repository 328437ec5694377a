/** The host service as a value: everything opened in order, everything closed in the reverse order. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rmdir } from 'node:fs/promises';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { PolydevError } from '../protocol/errors.ts';
import type { DriverName, HostHealth } from '../protocol/host.ts';
import type { HostConfig } from './config.ts';
import { Examiner, type ExaminerOptions } from './diagnosis/examiner.ts';
import { Watcher } from './diagnosis/watcher.ts';
import { report as doctorReport } from './doctor/check.ts';
import { examineHost } from './doctor/host.ts';
import { chooseDriver, DISK_OWNERS } from './drivers/auto.ts';
import type { DriverReport } from './drivers/driver.ts';
import { survivors } from './drivers/survivors.ts';
import { Evidence } from './evidence/evidence.ts';
import { hostMemory } from './evidence/facts.ts';
import { openImageStore } from './images/store.ts';
import { readConsole } from './machines/console.ts';
import { MachineManager } from './machines/manager.ts';
import { allowedMiB, checkSpace, diskSpace, LOW_DISK_MIB } from './machines/space.ts';
import { Templates } from './machines/templates.ts';
import { Network } from './network/network.ts';
import { checkRequirements } from './requirements.ts';
import { startServer } from './server/server.ts';
import { parseJson, readIfThere, removeTree, writeAtomic } from './system/files.ts';
import { claimDisks, claimIds, idLeasesIn, releaseIds } from './system/ids.ts';
import { identify, runs } from './system/processes.ts';

/** What only tests set. */
export interface Overrides {
  /** The guest's first program. */
  argv?: readonly string[];
  /** A network namespace that stands for the host's. */
  hostNetns?: string;
  /** Sees what each diagnosis is made from. */
  onCase?: ExaminerOptions['onCase'];
}

export interface HostService {
  /** What runs machines here, and why it was chosen. */
  readonly driver: { name: DriverName; why: string };
  readonly machines: MachineManager;
  health(): Promise<HostHealth>;
  /** Full stop: machines end, and nothing of this instance is left but disks and evidence. */
  stop(): Promise<void>;
}

const REPROBE_MS = 10_000;
const DOCTOR_DEADLINE_MS = 120_000;

/** Whoever asks while it is under way gets the same answer. */
function oneAtATime<T>(work: () => Promise<T>): () => Promise<T> {
  let current: Promise<T> | undefined;
  return () => {
    current ??= work().finally(() => {
      current = undefined;
    });
    return current;
  };
}

/** Starts everything. Throws PolydevError; what it made is gone then, machines of an earlier service excepted. */
export async function startHostService(
  config: HostConfig,
  log: Logger,
  overrides: Overrides = {},
): Promise<HostService> {
  const { instance, dataDir, runDir, sharedDir } = config;
  checkRequirements(runDir);
  await mkdir(runDir, { recursive: true });
  await chmod(runDir, 0o711);
  await claimInstance(runDir);
  const machinesFolder = join(dataDir, 'machines');
  await mkdir(machinesFolder, { recursive: true, mode: 0o700 });
  const starting = AbortSignal.timeout(60_000 * config.slowdown);

  await using undo = new AsyncDisposableStack();
  const running = await survivors(machinesFolder);
  if (running.length === 0) undo.defer(() => removeRunDir(config));
  const idLeases = idLeasesIn(sharedDir);
  for (const problem of await claimDisks(idLeases, machinesFolder, DISK_OWNERS))
    log.error(`a disk is not usable: ${problem}`);
  const serviceIds = await claimIds(idLeases, runDir, undefined);
  const network = await Network.open(
    {
      instance,
      runFolder: runDir,
      idpStateFolder: join(dataDir, 'idp'),
      uplink: config.uplink,
      subnet: config.subnet,
      resolvers: config.resolvers,
      forwardingFolder: join(sharedDir, 'forwarding'),
      hostNetns: overrides.hostNetns,
      idp: { checkout: config.checkout, nodePath: config.nodePath, script: 'testkit/idp/main.ts' },
      uids: { routerDns: serviceIds + 1, idpDns: serviceIds + 2, idp: serviceIds + 3 },
      slowdown: config.slowdown,
      log,
    },
    running,
    starting,
  );
  if (running.length === 0) undo.use(network);
  for (const notice of network.notices) log.warn(notice);
  const images = openImageStore(config.imageCacheDir, { runDir });
  await images.claim(instance, machinesFolder);
  undo.defer(() => (running.length === 0 ? images.unmountAll() : undefined));
  const choice = await chooseDriver({
    config,
    running,
    images,
    network,
    idLeases,
    machinesFolder,
    argv: overrides.argv,
    signal: starting,
  });
  const driver = undo.use(choice.driver);
  log.info({ driver: driver.name, why: choice.why }, 'driver chosen');
  const evidence = new Evidence(join(dataDir, 'evidence'), config.evidence);
  const { imageCacheDir } = config;
  const examiner = new Examiner({
    evidence,
    dataDir,
    imageCacheDir,
    images,
    network,
    driver,
    onCase: overrides.onCase,
  });
  const { enabled, idleSeconds } = config.snapshotStart;
  const templates = new Templates({
    driver,
    idleSeconds: enabled ? idleSeconds : null,
    available: async () => ({
      memory: (await hostMemory()).available,
      disk: (await diskSpace(dataDir)).available,
    }),
    log,
  });
  undo.use(templates);
  const machines = new MachineManager({
    driver,
    start: (spec, signal) => templates.start(spec, signal),
    machinesFolder,
    evidence,
    facts: (spec, image) => examiner.facts(spec, image, false),
    readConsole,
    checkSpace: (promised) => checkSpace(dataDir, config.diskOvercommit, promised),
    currentImage: async () => (await images.current())?.id,
    log,
  });
  await machines.takeOver();
  const recovered = { adopted: machines.runningCount, ended: machines.list().length - machines.runningCount };
  await driver.reclaimOrphans(machines.ids);

  let report: DriverReport & { at: number } = { ...choice.report, at: performance.now() };
  if (!report.ok) log.error({ problems: report.problems }, 'this driver does not work here');
  // One at a time: two trials have the same names and would take each other's things away.
  let probing: Promise<void> | undefined;
  const probeAgain = async (): Promise<void> => {
    report = {
      ...(await driver.probe(AbortSignal.timeout(30_000 * config.slowdown))),
      at: performance.now(),
    };
  };
  const health = async (): Promise<HostHealth> => {
    if (!report.ok && performance.now() - report.at > REPROBE_MS) {
      probing ??= probeAgain().finally(() => {
        probing = undefined;
      });
      await probing;
    }
    const image = (await images.current())?.id ?? null;
    return describeHealth({ config, report, network, machines, templates, evidence, recovered, image });
  };
  const server = await startServer({
    socketPath: config.socketPath,
    socketUid: config.socketUid,
    machines,
    examiner,
    watcher: new Watcher({
      evidence,
      dataDir,
      images,
      imageCacheDir,
      network,
      driver,
      onCase: overrides.onCase,
    }),
    images,
    health,
    doctor: oneAtATime(async () =>
      doctorReport(await examineHost({ ...config, running: true }, AbortSignal.timeout(DOCTOR_DEADLINE_MS))),
    ),
    log,
  });
  log.info(
    { instance, subnet: network.plan.cidr, adopted: running.length, probeMs: report.ms },
    'host service ready',
  );
  undo.move();

  return {
    driver: { name: driver.name, why: choice.why },
    machines,
    health,
    async stop() {
      await using all = new AsyncDisposableStack();
      all.defer(() => removeRunDir(config));
      all.defer(() => images.unclaim(instance));
      all.use(network);
      all.defer(() => images.unmountAll());
      all.use(driver);
      all.use(templates);
      all.defer(() => machines.close());
      all.use(server);
    },
  };
}

/** One host service per instance. Throws `already_running`. */
async function claimInstance(runDir: string): Promise<void> {
  const path = join(runDir, 'service.json');
  const Identity = z.object({ pid: z.number(), startTicks: z.number() });
  const left = Identity.safeParse(parseJson((await readIfThere(path)) ?? ''));
  if (left.success && left.data.pid !== process.pid && runs(left.data)) {
    throw new PolydevError('already_running', `process ${left.data.pid} serves ${runDir}`);
  }
  await writeAtomic(path, JSON.stringify(identify(process.pid)));
}

async function removeRunDir({ runDir, sharedDir }: HostConfig): Promise<void> {
  await releaseIds(idLeasesIn(sharedDir), runDir);
  await removeTree(runDir);
  // The shared folders go with the last instance; others' claims keep them.
  for (const folder of [join(sharedDir, 'ids'), sharedDir]) await rmdir(folder).catch(() => undefined);
}

async function describeHealth(parts: {
  config: HostConfig;
  report: DriverReport;
  network: Network;
  machines: MachineManager;
  templates: Templates;
  evidence: Evidence;
  recovered: HostHealth['recovered'];
  image: HostHealth['image'];
}): Promise<HostHealth> {
  const { config, report, network, machines, templates, evidence, recovered, image } = parts;
  const { held, size } = await network.addresses();
  const diskMiB = await diskSpace(config.dataDir);
  const problems = [...report.problems, ...network.problems()];
  if (image === null) problems.push('there is no current image');
  if (diskMiB.available < LOW_DISK_MIB)
    problems.push(`only ${diskMiB.available} MiB are free under the data directory`);
  return {
    ok: problems.length === 0,
    version: await ownVersion(config.checkout),
    driver: report.driver,
    image,
    machines: machines.runningCount,
    ...(config.snapshotStart.enabled ? { templates: templates.count } : {}),
    memoryMiB: await hostMemory(),
    diskMiB,
    promisedDiskMiB: {
      used: machines.promisedDiskMiB,
      allowed: allowedMiB(diskMiB.total, config.diskOvercommit),
    },
    evidence: await evidence.usage(),
    load: { one: loadavg()[0] ?? 0, cpus: availableParallelism() },
    addresses: { used: held, size },
    recovered,
    problems,
  };
}

async function ownVersion(checkout: string): Promise<string> {
  const path = join(checkout, 'package.json');
  if (!existsSync(path)) return 'unknown';
  return z.object({ version: z.string() }).parse(JSON.parse(await readFile(path, 'utf8'))).version;
}
