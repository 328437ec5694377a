/**
 * Chooses what runs machines. A driver that still runs some is kept; a driver asked for by name is taken, whatever its trial
 * says, so that its problems are seen; `auto` takes the first that really runs a guest here.
 */
import type { DriverName } from '../../protocol/host.ts';
import type { HostConfig } from '../config.ts';
import type { ImageStore } from '../images/store.ts';
import { findVmParts } from '../images/vm.ts';
import type { Network } from '../network/network.ts';
import type { Leases } from '../system/leases.ts';
import type { Driver, DriverReport } from './driver.ts';
import { diskOwner as rootfsOwner } from './namespace/disk.ts';
import { NamespaceDriver } from './namespace/driver.ts';
import { QemuDriver } from './qemu/driver.ts';
import type { Survivor } from './survivors.ts';
import { passedBefore, rememberTrial } from './trials.ts';
import { diskOwner as imageOwner } from './vm/disk.ts';

/** Who owns the private disk in a machine's folder, whichever driver made it. */
export const DISK_OWNERS = [rootfsOwner, imageOwner] as const;

export interface ChoiceInput {
  config: HostConfig;
  running: readonly Survivor[];
  images: ImageStore;
  network: Network;
  idLeases: Leases;
  machinesFolder: string;
  /** The guest's first program, for tests; only namespaces can change it. */
  argv: readonly string[] | undefined;
  signal: AbortSignal;
}

export interface Choice {
  driver: Driver;
  report: DriverReport;
  /** For people. */
  why: string;
}

type Known = Extract<DriverName, 'namespace' | 'qemu'>;
/** `auto` tries them in this order: without hardware virtualization, namespaces are the faster by far. */
const ORDER: readonly Known[] = ['namespace', 'qemu'];

function create(name: Known, input: ChoiceInput): Driver {
  const { config, images, network, idLeases, machinesFolder, argv } = input;
  const common = { instance: config.instance, machinesFolder, runFolder: config.runDir, network, idLeases };
  if (name === 'namespace') {
    return new NamespaceDriver({ ...common, images, ...(argv === undefined ? {} : { argv }) });
  }
  const { imageCacheDir: cacheDir, checkout } = config;
  return new QemuDriver({
    ...common,
    accelerator: 'tcg',
    images: {
      current: () => images.current(),
      layerFiles: (id) => images.layerFiles(id),
      vmParts: () => findVmParts({ cacheDir, checkout }),
    },
  });
}

/** Tries a driver, unless it is the slow one and has passed with this guest on this kernel. */
async function tried(driver: Driver, input: ChoiceInput, why: string): Promise<Omit<Choice, 'driver'>> {
  const { config, signal } = input;
  if (driver.name !== 'qemu') return { report: await driver.probe(signal), why };
  const { imageCacheDir: cacheDir, checkout, dataDir } = config;
  const guest = (await findVmParts({ cacheDir, checkout }))?.id ?? 'none';
  const before = await passedBefore(dataDir, 'qemu', guest);
  if (before !== undefined) {
    const report: DriverReport = { driver: 'qemu', ok: true, problems: [], ms: 0 };
    return { report, why: `${why}; its trial passed on this kernel at ${before}` };
  }
  const report = await driver.probe(signal);
  await rememberTrial(dataDir, report, guest);
  return { report, why };
}

/** Never throws for a driver that does not work: its report says so. */
export async function chooseDriver(input: ChoiceInput): Promise<Choice> {
  const { config, running } = input;
  const kept = ORDER.find((name) => running.some(({ driver }) => driver === name));
  const asked = kept ?? (config.driver === 'auto' ? undefined : config.driver);
  if (asked !== undefined) {
    const driver = create(asked, input);
    if (kept === undefined) return { driver, ...(await tried(driver, input, 'asked for')) };
    // Its guests run: no trial could say more, and they wait for us.
    const report: DriverReport = { driver: asked, ok: true, problems: [], ms: 0 };
    return { driver, report, why: 'machines of an earlier host service run in it' };
  }
  let first: Choice | undefined;
  const failures: string[] = [];
  for (const name of ORDER) {
    const driver = create(name, input);
    const why = ['it runs a guest here', ...failures].join('; ');
    const choice = { driver, ...(await tried(driver, input, why)) };
    const { report } = choice;
    if (report.ok) {
      await first?.driver[Symbol.asyncDispose]();
      return choice;
    }
    failures.push(...report.problems);
    if (first === undefined) first = choice;
    else await driver[Symbol.asyncDispose]();
  }
  if (first === undefined) throw new Error('there is no driver');
  return { ...first, why: `none runs a guest here: ${failures.join('; ')}` };
}
