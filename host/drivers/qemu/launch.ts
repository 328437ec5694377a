/** From a machine's specification to its running hypervisor: the files it inherits, its limits, what is kept of both. */
import { chownSync, closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { chmod, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId } from '../../../protocol/ids.ts';
import type { GuestConfig, MachineSpec } from '../../../protocol/machine.ts';
import { Console, type LineWatch } from '../../machines/console.ts';
import type { Attachment } from '../../network/network.ts';
import { listenUnix } from '../../system/syscalls.ts';
import { configDrive, guestConfig, hostnameOf } from '../vm/config.ts';
import { diskPath } from '../vm/disk.ts';
import { kvmGroup } from '../vm/kvm.ts';
import type { Consoles } from '../vm/machine.ts';
import { AGENT_PORT_NAME, hypervisorArguments, TRANSLATION_MIB } from './args.ts';
import { logFolder, recordStart } from './evidence.ts';
import { type Hypervisor, startHypervisor } from './hypervisor.ts';
import type { Place, QemuDriverOptions } from './options.ts';
import { basePath, isOverlay } from './overlay.ts';

const MIB = 1024 * 1024;
/** The hypervisor's own memory beside the guest's. */
const OVERHEAD_MIB = 256;
/** Its threads. */
export const HYPERVISOR_PIDS = 128;
const FIRST_INHERITED = 3;

/** How a guest begins when it does not boot into memory that is only its own. */
export interface Beginning {
  /** File of a guest that was saved whole. */
  saved?: string;
  /** Descriptor of memory, and the file of the devices that belong to what is in it; without one the guest boots there. */
  memory?: { descriptor: number; devices?: string };
}

export interface Launch {
  spec: MachineSpec;
  image: ImageId;
  place: Place;
  owner: number;
  attachment: Attachment & { tap: number };
  /** Of the channel, as the guest will know it. */
  mark: string;
  /** Of the driver. */
  slowdown: number;
  begins: Beginning;
  /** The channel to the guest can be opened from now on. */
  onListening: () => void;
}

/** What the guest is told of itself. */
export const configOf = ({ spec, attachment, mark, slowdown }: Launch): GuestConfig =>
  guestConfig(spec, { attachment, listen: { serial: AGENT_PORT_NAME, mark }, slowdown });

/** Throws `image_missing`. */
export async function vmParts(
  images: QemuDriverOptions['images'],
): Promise<{ kernel: string; initrd: string }> {
  const parts = await images.vmParts();
  if (parts !== undefined) return parts;
  throw new PolydevError('image_missing', 'the kernel of virtual machines was not made: build it with --vm');
}

/** Starts the hypervisor and waits until its guest runs. Throws PolydevError; what is left then is the caller's to reclaim. */
export async function launch(
  { accelerator, images }: Pick<QemuDriverOptions, 'accelerator' | 'images'>,
  guest: Launch,
  signal: AbortSignal,
): Promise<Hypervisor> {
  const { spec, place, owner, attachment, begins } = guest;
  const parts = await vmParts(images);
  const layers = await images.layerFiles(guest.image);
  const config = join(place.runFolder, 'config.tar');
  await rm(config, { force: true });
  const drive = configDrive(configOf(guest), spec, attachment);
  await writeFile(config, drive, { mode: 0o400, flag: 'wx' });
  chownSync(config, owner, owner);

  using undo = new DisposableStack();
  const inherit: number[] = [];
  const pass = (descriptor: number, ours = true): number => {
    if (ours) undo.defer(() => closeSync(descriptor));
    inherit.push(descriptor);
    return FIRST_INHERITED + inherit.length - 1;
  };
  for (const socket of [place.qmp, place.agent]) rmSync(socket, { force: true });
  const output = Console.guestEnd(place.log);
  undo.defer(() => closeSync(output));
  const { saved, memory } = begins;
  const devices = memory?.devices === undefined ? undefined : pass(openSync(memory.devices, 'r'));
  const files = {
    kernel: pass(openSync(parts.kernel, 'r')),
    initrd: pass(openSync(parts.initrd, 'r')),
    layers: layers.map((file) => pass(openSync(file, 'r'))),
    disk: pass(openSync(diskPath(place.folder), 'r+')),
    ...(isOverlay(place.folder) ? { base: pass(openSync(basePath(place.folder), 'r')) } : {}),
    config: pass(openSync(config, 'r')),
    console: pass(Console.guestEnd(place.console)),
    qmp: pass(listenUnix(place.qmp, 4)),
    agent: pass(listenUnix(place.agent, 4)),
    tap: pass(attachment.tap, false),
    ...(saved === undefined ? {} : { saved: pass(openSync(saved, 'r')) }),
    ...(memory === undefined
      ? {}
      : { memory: { descriptor: pass(memory.descriptor, false), own: devices === undefined } }),
  };
  for (const socket of [place.qmp, place.agent]) await chmod(socket, 0o600);
  guest.onListening();
  const memoryMiB = spec.limits.memoryMiB + OVERHEAD_MIB + (accelerator === 'tcg' ? TRANSLATION_MIB : 0);
  const plan = { accelerator, limits: spec.limits, kind: spec.kind, mac: attachment.mac, files };
  const argv = hypervisorArguments({ ...plan, hostname: hostnameOf(spec.id) });
  const limits = { memoryBytes: memoryMiB * MIB, cpus: spec.limits.cpus, pids: HYPERVISOR_PIDS };
  const { cgroup } = place;
  await recordStart(place.folder, { argv, files, parts, layers, uid: owner, cgroup, limits });
  return startHypervisor(
    {
      argv,
      inherit,
      output,
      uid: owner,
      group: accelerator === 'kvm' ? kvmGroup() : undefined,
      netns: attachment.namespace,
      cgroup,
      limits,
      qmpPath: place.qmp,
      wakes: saved === undefined && devices === undefined ? undefined : { devices },
    },
    signal,
  );
}

/** Into the log of the hypervisor, between what it says itself: what was done with it. */
export function noteLine({ log }: Pick<Place, 'log'>, line: string): void {
  try {
    const output = Console.guestEnd(log);
    try {
      writeSync(output, `polydev: ${line}\n`);
    } finally {
      closeSync(output);
    }
  } catch {
    // The machine went meanwhile, and its log with it.
  }
}

/** Both pipes are read from now on; `watch` sees what the guest prints. */
export async function openConsoles(place: Place, owner: number, watch?: LineWatch): Promise<Consoles> {
  const guest = await Console.open(place.folder, place.console, owner, watch);
  const own = await Console.open(logFolder(place.folder), place.log, owner);
  const both = async (work: (one: Console) => Promise<void>): Promise<void> =>
    void (await Promise.all([guest, own].map(work)));
  return { flush: () => both((one) => one.flush()), close: () => both((one) => one.close()) };
}

/** A failed start with the last lines of both consoles: they say more than how the hypervisor ended. */
export async function withLastLines(
  thrown: unknown,
  folder: string,
  consoles: Consoles,
): Promise<PolydevError> {
  const error = PolydevError.from(thrown, 'machine_start_failed');
  await consoles.flush();
  const last = await Promise.all([folder, logFolder(folder)].map((each) => Console.lastLines(each, 20)));
  const lines = last.flat().filter((line) => line !== '');
  const why = error.code === 'machine_start_failed' ? lines.at(-1) : undefined;
  return new PolydevError(error.code, why === undefined ? error.message : `${error.message}: ${why}`, {
    cause: thrown,
    lines: [...error.lines, ...lines],
  });
}
