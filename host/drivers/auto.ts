/**
 * Chooses what runs machines. A driver that still runs some is kept; a driver asked for by name is taken, whatever its trial
 * says, so that its problems are seen; `auto` takes the first that really runs a guest here.
 */
import { statSync } from 'node:fs';
import type { HostConfig } from '../config.ts';
import type { ImageStore } from '../images/store.ts';
import { findVmParts } from '../images/vm.ts';
import { ensureVmlinux } from '../images/vmlinux.ts';
import type { Network } from '../network/network.ts';
import type { Leases } from '../system/leases.ts';
import type { Driver, DriverReport } from './driver.ts';
import { findFirecracker } from './firecracker/binaries.ts';
import { FirecrackerDriver } from './firecracker/driver.ts';
import { diskOwner as rootfsOwner } from './namespace/disk.ts';
import { NamespaceDriver } from './namespace/driver.ts';
import { QemuDriver } from './qemu/driver.ts';
import type { Survivor } from './survivors.ts';
import { knownTrial, rememberTrial } from './trials.ts';
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

/** A driver, and for QEMU how it runs a guest's processor. */
type Way = 'firecracker' | 'qemu-kvm' | 'namespace' | 'qemu-tcg';
/** `auto` tries them in this order; by name, QEMU takes hardware virtualization where it really works. */
const ORDER: readonly Way[] = ['firecracker', 'qemu-kvm', 'namespace', 'qemu-tcg'];
const driverOf = (way: Way) => (way === 'qemu-kvm' || way === 'qemu-tcg' ? 'qemu' : way);

function create(way: Way, input: ChoiceInput): Driver {
  const { config, images, network, idLeases, machinesFolder, argv } = input;
  const common = { instance: config.instance, machinesFolder, runFolder: config.runDir, network, idLeases };
  if (way === 'namespace') {
    return new NamespaceDriver({ ...common, images, ...(argv === undefined ? {} : { argv }) });
  }
  const { imageCacheDir: cacheDir, checkout, firecracker, jailer, slowdown } = config;
  const disks = {
    current: () => images.current(),
    layerFiles: (id: string) => images.layerFiles(id),
    vmParts: () => findVmParts({ cacheDir, checkout }),
  };
  // Firecracker starts only kernels that are not compressed, and an emulated processor takes long to unpack one.
  const unpacked = {
    ...disks,
    vmParts: async () => {
      const parts = await disks.vmParts();
      return parts === undefined ? undefined : { ...parts, kernel: await ensureVmlinux(parts.kernel) };
    },
  };
  if (way === 'firecracker') {
    return new FirecrackerDriver({ ...common, firecracker, jailer, slowdown, images: unpacked });
  }
  return way === 'qemu-kvm'
    ? new QemuDriver({ ...common, accelerator: 'kvm', slowdown, images: disks })
    : new QemuDriver({ ...common, accelerator: 'tcg', slowdown, images: unpacked });
}

/** What a trial's result holds for: another kernel or initramfs, or another Firecracker, is another trial. */
async function guestOf(way: Way, { config }: ChoiceInput): Promise<string> {
  const { imageCacheDir: cacheDir, checkout } = config;
  const parts = (await findVmParts({ cacheDir, checkout }))?.id ?? 'none';
  if (way !== 'firecracker') return parts;
  const program = findFirecracker(config.firecracker);
  return `${parts} ${program} ${program === undefined ? '' : statSync(program).mtimeMs}`;
}

/** Tries a driver, unless its trial is known. One that failed is tried again when it was asked for and nothing can replace it. */
async function tried(
  way: Way,
  driver: Driver,
  input: ChoiceInput,
  why: string,
): Promise<Omit<Choice, 'driver'>> {
  const { config, signal } = input;
  if (way === 'namespace') return { report: await driver.probe(signal), why };
  const guest = await guestOf(way, input);
  const known = await knownTrial(config.dataDir, way, guest);
  const replaceable = config.driver === 'auto' || (way === 'qemu-kvm' && config.driver === 'qemu');
  if (known !== undefined && (known.problems.length === 0 || replaceable)) {
    const { problems, at } = known;
    const ok = problems.length === 0;
    const report: DriverReport = { driver: driver.name, ok, problems, ms: 0 };
    return { report, why: `${why}; its trial ${ok ? 'passed' : 'failed'} on this kernel at ${at}` };
  }
  const report = await driver.probe(signal);
  await rememberTrial(config.dataDir, way, report, guest);
  return { report, why };
}

/** The driver of machines that run: no trial could say more, and they wait for us. */
async function keep(input: ChoiceInput): Promise<Choice | undefined> {
  const kept = ORDER.filter((way) => input.running.some(({ driver }) => driver === driverOf(way)));
  const [first] = kept;
  if (first === undefined) return undefined;
  const passed = await Promise.all(
    kept.map(async (way) => {
      const known = await knownTrial(input.config.dataDir, way, await guestOf(way, input));
      return known?.problems.length === 0 ? [way] : [];
    }),
  );
  const way = passed.flat()[0] ?? kept.at(-1) ?? first;
  const report: DriverReport = { driver: driverOf(way), ok: true, problems: [], ms: 0 };
  return { driver: create(way, input), report, why: 'machines of an earlier host service run in it' };
}

/** Never throws for a driver that does not work: its report says so. */
export async function chooseDriver(input: ChoiceInput): Promise<Choice> {
  const { config } = input;
  const kept = await keep(input);
  if (kept !== undefined) return kept;
  const asked = config.driver;
  const ways = asked === 'auto' ? ORDER : ORDER.filter((way) => way === asked || driverOf(way) === asked);
  const failures: string[] = [];
  let last: Choice | undefined;
  for (const way of ways) {
    const driver = create(way, input);
    const reason = asked === 'auto' ? `it runs a guest here (${way})` : `asked for (${way})`;
    const choice = { driver, ...(await tried(way, driver, input, [reason, ...failures].join('; '))) };
    await last?.driver[Symbol.asyncDispose]();
    if (choice.report.ok) return choice;
    failures.push(...choice.report.problems);
    last = choice;
  }
  if (last === undefined) throw new Error('there is no driver');
  if (asked !== 'auto') return { ...last, report: { ...last.report, problems: failures } };
  // None works: namespaces need the least, and their problems are the ones to mend.
  await last.driver[Symbol.asyncDispose]();
  const driver = create('namespace', input);
  const report: DriverReport = { driver: 'namespace', ok: false, problems: failures, ms: 0 };
  return { driver, report, why: `none runs a guest here: ${failures.join('; ')}` };
}
