/**
 * host/drivers/qemu/: machines as virtual machines under QEMU's `microvm`, with hardware or software emulation. The image's
 * layers as read-only disks below a private one, the agent's channel as a serial port, a TAP interface on the router.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, statSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MARK_BYTES } from '../../../protocol/channel/frames.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId, MachineId } from '../../../protocol/ids.ts';
import type { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import type { GuestFacts } from '../../evidence/facts.ts';
import { limitFacts } from '../../evidence/limits.ts';
import { Console, type LineWatch } from '../../machines/console.ts';
import { cgroupOfInstance, cgroupProcesses, removeCgroup } from '../../system/cgroups.ts';
import { ExitWatch } from '../../system/exit.ts';
import { removeTree } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import { openMemoryFile, sealMemoryFile } from '../../system/memory-file.ts';
import { endProcess, runs } from '../../system/processes.ts';
import type { WaitStatus } from '../../system/syscalls.ts';
import type { Driver, DriverReport, Machine, Template } from '../driver.ts';
import { takeBackCgroups, takeBackOrphans } from '../orphans.ts';
import { stampHypervisor, watchBoot } from '../vm/boot-watch.ts';
import { GuestChannel } from '../vm/channel.ts';
import { diskOwner, diskSpace, ensureDisk, removeDisk } from '../vm/disk.ts';
import { journalOnDisk } from '../vm/journal.ts';
import type { Consoles } from '../vm/machine.ts';
import { asNobody, SavedGuest, tellWhoItIs, untilSettled } from '../vm/template.ts';
import type { Accelerator } from './args.ts';
import { hypervisorEvidence, hypervisorFacts, logFolder } from './evidence.ts';
import { openFlat, openFront } from './flat.ts';
import type { Hypervisor } from './hypervisor.ts';
import {
  type Beginning,
  configOf,
  HYPERVISOR_PIDS,
  launch,
  noteLine,
  openConsoles,
  vmParts,
  withLastLines,
} from './launch.ts';
import { QemuMachine } from './machine.ts';
import type { Place, QemuDriverOptions } from './options.ts';
import { isOverlay, makeOverlay, removeBase } from './overlay.ts';
import { probe } from './probe.ts';
import { Qmp } from './qmp.ts';
import { keepKernelGoing, keepTimerRight } from './restart.ts';
import { makerHere, requireSameMaker, saveGuest } from './sleep.ts';
import {
  memoryFile,
  readAsleep,
  readState,
  removeAsleep,
  type State,
  writeAsleep,
  writeState,
} from './state.ts';
import { giveDiskAway, pathsOf, type Saved } from './template.ts';

const MIB = 1024 * 1024;
/** Measured: with 64 the kernel ends without a word, with 112 the guest reads its programs again and again and never gets on. */
const MIN_MEMORY_MIB = 256;
const QMP_TIMEOUT_MS = 20_000;

/**
 * Measured on two shared cores: a boot to the agent takes 14 s instead of 1, a step of a login 2 to 8 times as long. What is
 * certain to fail is not waited for, so this may be generous.
 */
const SLOWDOWN: Readonly<Record<Accelerator, number>> = { tcg: 8, kvm: 1 };

const newMark = (): string => randomBytes(MARK_BYTES).toString('hex');

export class QemuDriver implements Driver {
  readonly name = 'qemu';
  readonly sleep = 'disk';
  readonly slowdown: number;
  readonly #options: QemuDriverOptions;
  readonly #exits = new ExitWatch();
  readonly #machines = new Map<MachineId, QemuMachine>();

  constructor(options: QemuDriverOptions) {
    this.#options = options;
    this.slowdown = SLOWDOWN[options.accelerator] * (options.accelerator === 'kvm' ? options.slowdown : 1);
    mkdirSync(join(options.runFolder, 'm'), { recursive: true, mode: 0o711 });
  }

  probe(signal: AbortSignal): Promise<DriverReport> {
    const { instance, runFolder, accelerator, slowdown, idLeases, images } = this.#options;
    const parts = () => images.vmParts();
    return probe({ instance, runFolder, accelerator, slowdown, idLeases, parts }, signal);
  }

  #place(id: MachineId): Place {
    const { machinesFolder, instance, runFolder: all } = this.#options;
    const runFolder = join(all, 'm', id);
    return {
      folder: join(machinesFolder, id),
      runFolder,
      cgroup: `${cgroupOfInstance(instance)}/${id}`,
      agent: join(runFolder, 'agent.sock'),
      qmp: join(runFolder, 'qmp.sock'),
      console: join(runFolder, 'console'),
      log: join(runFolder, 'hypervisor'),
    };
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const running = this.#machines.get(spec.id);
    if (running?.running === true) return running;
    return (await this.adopt(spec.id)) ?? this.#boot(spec, {}, signal);
  }

  /** Starts a machine on its own disk: a new one, or the one that it left. */
  async #boot(spec: MachineSpec, begins: Beginning, signal: AbortSignal): Promise<QemuMachine> {
    await this.reclaim(spec.id, { disk: false });
    if (spec.limits.memoryMiB < MIN_MEMORY_MIB) {
      throw new PolydevError(
        'machine_start_failed',
        `a virtual machine needs at least ${MIN_MEMORY_MIB} MiB of memory, not ${spec.limits.memoryMiB}`,
      );
    }
    const image = spec.image ?? (await this.#options.images.current())?.id;
    if (image === undefined) throw new PolydevError('image_missing', 'this host has no current image');
    const { folder } = this.#place(spec.id);
    const newDisk = diskOwner(folder) === undefined;
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: newDisk }));
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // A guest that slept knows another state of the disk than the one that boots now will leave.
    await removeAsleep(folder);
    const owner = await this.#prepare(folder);
    await ensureDisk(folder, spec, owner, signal);
    const machine = await this.#run({ spec, image, owner, mark: newMark() }, { begins }, signal);
    undo.move();
    return machine;
  }

  /** No console of an earlier run, and ids. */
  async #prepare(folder: string): Promise<number> {
    for (const each of [folder, logFolder(folder)]) await Console.forget(each);
    return claimIds(this.#options.idLeases, folder, diskOwner(folder));
  }

  async makeTemplate(like: MachineSpec, signal: AbortSignal): Promise<Template> {
    const { accelerator, images, idLeases } = this.#options;
    const { spec, token } = asNobody(like);
    const { id } = spec;
    const { folder, runFolder, qmp: qmpPath } = this.#place(id);
    const memory = openMemoryFile('polydev-template', spec.limits.memoryMiB * MIB);
    const release = async (): Promise<void> => {
      closeSync(memory);
      await this.reclaim(id, { disk: true });
      await removeTree(folder);
    };
    await using undo = new AsyncDisposableStack();
    undo.defer(release);
    const machine = await this.#boot(spec, { memory: { descriptor: memory } }, signal);
    await untilSettled(machine, token, this.slowdown, signal);
    const maker = await makerHere(accelerator, (await vmParts(images)).kernel, signal);
    const { owner, mark } = machine.state;
    const { devices, disk } = pathsOf(folder);
    await machine.leave(async () => {
      using qmp = await Qmp.connect(qmpPath, QMP_TIMEOUT_MS);
      const to = { file: devices, socket: join(runFolder, 'save.sock'), owner, devicesOnly: true };
      await saveGuest(qmp, to, signal);
    });
    sealMemoryFile(memory);
    await giveDiskAway(folder);
    await releaseIds(idLeases, folder);
    const { image } = machine;
    const saved = { folder, image, memory, diskBytes: statSync(disk).size, mark, token, maker };
    const template = new SavedGuest((copy, limit) => this.#copy(saved, copy, limit), release);
    undo.move();
    return template;
  }

  async #copy(saved: Saved, spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const { accelerator, images } = this.#options;
    const { image, diskBytes, memory } = saved;
    const { folder } = this.#place(spec.id);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: true }));
    await this.reclaim(spec.id, { disk: true });
    const here = makerHere(accelerator, (await vmParts(images)).kernel, signal);
    here.catch(() => undefined); // awaited below, after what does not depend on it
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const owner = await this.#prepare(folder);
    const { devices, disk } = pathsOf(saved.folder);
    await makeOverlay(folder, disk, diskBytes, owner);
    requireSameMaker(saved.maker, await here);
    const begins = { memory: { descriptor: memory, devices } };
    const machine = await this.#run({ spec, image, owner, mark: newMark() }, { begins, saved }, signal);
    undo.move();
    return machine;
  }

  async asleep(id: MachineId): Promise<boolean> {
    return (await readAsleep(this.#place(id).folder)) !== undefined;
  }

  async resume(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const place = this.#place(spec.id);
    const asleep = await readAsleep(place.folder);
    if (asleep === undefined) throw new PolydevError('not_found', `no guest of ${spec.id} sleeps here`);
    await this.reclaim(spec.id, { disk: false });
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: false }));
    try {
      const { accelerator, images } = this.#options;
      requireSameMaker(asleep.maker, await makerHere(accelerator, (await vmParts(images)).kernel, signal));
      const begins = { saved: memoryFile(place.folder) };
      const { address } = asleep;
      const machine = await this.#run({ ...asleep, spec }, { begins, address }, signal);
      await removeAsleep(place.folder);
      undo.move();
      return machine;
    } catch (error) {
      const known = PolydevError.from(error, 'machine_resume_failed');
      throw new PolydevError('machine_resume_failed', known.message, { cause: error, lines: known.lines });
    }
  }

  /**
   * Network and hypervisor of a guest; a copy of `saved` is told who it is. What it leaves when it fails is the caller's to reclaim.
   */
  async #run(
    guest: { spec: MachineSpec; image: ImageId; owner: number; mark: string; copied?: boolean },
    how: { begins: Beginning; address?: string; saved?: Saved },
    signal: AbortSignal,
  ): Promise<QemuMachine> {
    const { spec, image, owner, mark } = guest;
    const { begins, saved } = how;
    const place = this.#place(spec.id);
    await mkdir(place.runFolder, { recursive: true, mode: 0o711 });
    await mkdir(logFolder(place.folder), { recursive: true, mode: 0o700 });
    const stamps: Stamp[] = [];
    let state: State | undefined;
    const watch = this.#watchBoot(spec.id, stamps, () => state);
    const consoles = await openConsoles(place, owner, watch);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => consoles.close());
    const attachment = await this.#options.network.attachTap(spec.id, spec.realm, signal, how.address);
    let channel: GuestChannel | undefined;
    undo.defer(() => channel?.[Symbol.dispose]());
    const onListening = (): void => {
      channel = new GuestChannel(place.agent, saved?.mark ?? mark, this.slowdown);
    };
    const start = { ...guest, place, attachment, slowdown: this.slowdown, begins, onListening };
    let hypervisor: Hypervisor;
    try {
      hypervisor = await launch(this.#options, start, signal);
    } catch (thrown) {
      throw await withLastLines(thrown, place.folder, consoles);
    } finally {
      closeSync(attachment.tap);
    }
    stampHypervisor(stamps);
    if (channel === undefined) throw new Error('the hypervisor did not listen');
    if (saved !== undefined) {
      const told = channel;
      const self = { config: configOf(start), attachment };
      await tellWhoItIs((port, limit) => told.dial(port, limit), saved.token, self, signal);
      told.remark(mark);
      // What it is a copy of has booted it.
      stamps.push({ checkpoint: 'kernel', at: new Date().toISOString() });
    }
    const { address } = attachment;
    // Whoever takes the machine over after us finds one that knows who it is, or none.
    state = {
      ...{ driver: 'qemu', spec, image, address, owner, mark },
      ...{ ...hypervisor.process, stamps, copied: saved !== undefined || guest.copied === true },
    };
    await writeState(place.folder, state);
    undo.move();
    return this.#present(state, { consoles, channel }, hypervisor.exited);
  }

  /** Follows a boot on the guest's console; what is seen is written down with the state, once there is one. */
  #watchBoot(id: MachineId, stamps: Stamp[], state: () => State | undefined): LineWatch {
    const place = this.#place(id);
    const keep = async (): Promise<void> => {
      const now = state();
      if (now !== undefined && this.#machines.has(id)) await writeState(place.folder, now);
    };
    if (this.#options.accelerator !== 'tcg') return watchBoot({ stamps, keep });
    const say = (line: string): void => noteLine(place, line);
    const isRunning = (): boolean => {
      const now = state();
      return now !== undefined && runs(now);
    };
    return watchBoot({
      stamps,
      keep,
      onTimer: keepTimerRight(place.qmp, say),
      onKernel: keepKernelGoing(place.qmp, { slowdown: this.slowdown, runs: isRunning, say }),
    });
  }

  #present(
    state: State,
    { consoles, channel }: { consoles: Consoles; channel: GuestChannel },
    ended: Promise<WaitStatus>,
  ): QemuMachine {
    const { id } = state.spec;
    const place = this.#place(id);
    const machine: QemuMachine = new QemuMachine({
      spec: state.spec,
      image: state.image,
      address: state.address,
      stamps: state.stamps,
      process: { pid: state.pid, startTicks: state.startTicks },
      ended,
      console: consoles,
      consoleFolder: place.folder,
      channel,
      cgroup: place.cgroup,
      reclaim: (options) => this.reclaim(id, options),
      state,
      sleep: (signal) => this.#putToSleep(state, signal),
    });
    this.#machines.set(id, machine);
    return machine;
  }

  /** Saves the guest beside its disk. A guest that could not be saved runs on. */
  async #putToSleep(state: State, signal: AbortSignal): Promise<void> {
    const { folder, runFolder, qmp: path } = this.#place(state.spec.id);
    const { accelerator, images } = this.#options;
    using qmp = await Qmp.connect(path, QMP_TIMEOUT_MS);
    const maker = await makerHere(accelerator, (await vmParts(images)).kernel, signal);
    await removeAsleep(folder);
    const to = { file: memoryFile(folder), socket: join(runFolder, 'save.sock'), owner: state.owner };
    await saveGuest(qmp, to, signal);
    await writeAsleep(folder, state, maker);
  }

  async adopt(id: MachineId): Promise<Machine | undefined> {
    const known = this.#machines.get(id);
    if (known?.running === true) return known;
    const place = this.#place(id);
    const state = await readState(place.folder);
    if (state === undefined || !runs(state) || !existsSync(place.log)) return undefined;
    if (this.#options.network.attached(id) === undefined) return undefined;
    const booted = state.stamps.some(({ checkpoint }) => checkpoint === 'init');
    const watch = booted ? undefined : this.#watchBoot(id, state.stamps, () => state);
    const consoles = await openConsoles(place, state.owner, watch);
    const channel = new GuestChannel(place.agent, state.mark, this.slowdown);
    const { pid, startTicks } = state;
    const machine = this.#present(state, { consoles, channel }, this.#exits.watch({ pid, startTicks }));
    // What was seen before the machine was presented is not written down yet.
    if (!booted) await writeState(place.folder, state);
    return machine;
  }

  async reclaim(id: MachineId, options: { disk: boolean }): Promise<void> {
    const { folder, runFolder, cgroup } = this.#place(id);
    await Promise.all(cgroupProcesses(cgroup).map((found) => endProcess(found, 0)));
    const state = await readState(folder);
    if (state !== undefined && runs(state)) await endProcess(state, 0);
    await removeCgroup(cgroup);
    await this.#options.network.detach(id);
    await removeTree(runFolder);
    await rm(join(folder, 'driver.json'), { force: true });
    this.#machines.delete(id);
    if (!options.disk) return;
    await removeAsleep(folder);
    await removeDisk(folder);
    await removeBase(folder);
    await releaseIds(this.#options.idLeases, folder);
  }

  evidence(id: MachineId): Promise<Record<string, string>> {
    return hypervisorEvidence(this.#place(id).folder);
  }

  journal(id: MachineId, ended: boolean): Promise<string> {
    const { folder } = this.#place(id);
    return journalOnDisk(folder, ended, isOverlay(folder) ? openFlat : undefined);
  }

  async inspect(spec: MachineSpec): Promise<GuestFacts | null> {
    const { folder, cgroup, qmp } = this.#place(spec.id);
    const known = limitFacts({ memoryMiB: spec.limits.memoryMiB, pids: HYPERVISOR_PIDS }, cgroup);
    const state = await readState(folder);
    if (known === null) return null;
    const pid = state !== undefined && runs(state) ? state.pid : undefined;
    const disk = isOverlay(folder) ? openFront : undefined;
    const [diskKiB, hypervisor] = await Promise.all([
      diskSpace(folder, disk).catch(() => null),
      hypervisorFacts(pid, qmp),
    ]);
    return { ...known, diskKiB, hypervisor };
  }

  /** Takes back what belongs to no machine of `keep`; see the namespace driver. Disks stay: they are the manager's. */
  async reclaimOrphans(keep: ReadonlySet<string>): Promise<void> {
    const { instance, runFolder, idLeases, machinesFolder } = this.#options;
    const reclaim = (id: MachineId): Promise<void> => this.reclaim(id, { disk: false });
    const folders = [join(runFolder, 'm')];
    await takeBackOrphans({ instance, folders, machinesFolder, idLeases, reclaim }, keep);
  }

  /** Ends watching. Machines that run go on running; without any, the instance's cgroups go too. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exits[Symbol.dispose]();
    await takeBackCgroups(this.#options.instance);
  }
}
