/**
 * host/drivers/qemu/: machines as virtual machines under QEMU's `microvm`, with hardware or software emulation. The image's
 * layers as read-only disks below a private one, the agent's channel as a serial port, a TAP interface on the router.
 */
import { randomBytes } from 'node:crypto';
import { chownSync, closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MARK_BYTES } from '../../../protocol/channel/frames.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import { type ImageId, MachineId } from '../../../protocol/ids.ts';
import type { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import type { GuestFacts } from '../../evidence/facts.ts';
import { limitFacts } from '../../evidence/limits.ts';
import { Console, type Sign } from '../../machines/console.ts';
import type { Attachment } from '../../network/network.ts';
import { cgroupChildren, cgroupOfInstance, cgroupProcesses, removeCgroup } from '../../system/cgroups.ts';
import { ExitWatch } from '../../system/exit.ts';
import { listIfThere, removeTree } from '../../system/files.ts';
import { endProcess, runs } from '../../system/processes.ts';
import { listenUnix, type WaitStatus } from '../../system/syscalls.ts';
import type { Driver, DriverReport, Machine } from '../driver.ts';
import { claimIds, releaseIds } from '../ids.ts';
import { initSign } from '../vm/arguments.ts';
import { GuestChannel } from '../vm/channel.ts';
import { configDrive, guestConfig, hostnameOf } from '../vm/config.ts';
import { diskOwner, diskPath, diskSpace, ensureDisk, removeDisk } from '../vm/disk.ts';
import { journalOnDisk } from '../vm/journal.ts';
import { kvmGroup } from '../vm/kvm.ts';
import type { Consoles } from '../vm/machine.ts';
import { type Accelerator, AGENT_PORT_NAME, hypervisorArguments, TRANSLATION_MIB } from './args.ts';
import { hypervisorEvidence, hypervisorFacts, logFolder, recordStart } from './evidence.ts';
import { type Hypervisor, startHypervisor } from './hypervisor.ts';
import { QemuMachine } from './machine.ts';
import type { Place, QemuDriverOptions } from './options.ts';
import { probe } from './probe.ts';
import { Qmp } from './qmp.ts';
import { makerHere, requireSameMaker, saveGuest } from './sleep.ts';
import {
  type Asleep,
  memoryFile,
  readAsleep,
  readState,
  removeAsleep,
  type State,
  writeAsleep,
  writeState,
} from './state.ts';

const MIB = 1024 * 1024;
/** The hypervisor's own memory beside the guest's. */
const OVERHEAD_MIB = 256;
/** Measured: with 64 the kernel ends without a word, with 112 the guest reads its programs again and again and never gets on. */
const MIN_MEMORY_MIB = 256;
const QMP_TIMEOUT_MS = 20_000;
/** Its threads. */
const HYPERVISOR_PIDS = 128;
const FIRST_INHERITED = 3;

/**
 * Measured on two shared cores: a boot to the agent takes 14 s instead of 1, a step of a login 2 to 8 times as long. What is
 * certain to fail is not waited for, so this may be generous.
 */
const SLOWDOWN: Readonly<Record<Accelerator, number>> = { tcg: 8, kvm: 1 };

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
    const adopted = await this.adopt(spec.id);
    if (adopted !== undefined) return adopted;
    await this.reclaim(spec.id, { disk: false });

    if (spec.limits.memoryMiB < MIN_MEMORY_MIB) {
      throw new PolydevError(
        'machine_start_failed',
        `a virtual machine needs at least ${MIN_MEMORY_MIB} MiB of memory, not ${spec.limits.memoryMiB}`,
      );
    }
    const image = spec.image ?? (await this.#options.images.current())?.id;
    if (image === undefined) throw new PolydevError('image_missing', 'this host has no current image');
    const place = this.#place(spec.id);
    const newDisk = diskOwner(place.folder) === undefined;
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: newDisk }));
    await mkdir(place.folder, { recursive: true, mode: 0o700 });
    // A guest that slept knows another state of the disk than the one that boots now will leave.
    await removeAsleep(place.folder);
    for (const folder of [place.folder, logFolder(place.folder)]) await Console.forget(folder);
    const owner = await claimIds(this.#options.idLeases, place.folder, diskOwner(place.folder));
    await ensureDisk(place.folder, spec, owner, signal);
    const mark = randomBytes(MARK_BYTES).toString('hex');
    const machine = await this.#run({ spec, image, owner, mark }, undefined, signal);
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
      const { kernel } = await this.#parts();
      requireSameMaker(asleep.maker, await makerHere(this.#options.accelerator, kernel, signal));
      const machine = await this.#run({ ...asleep, spec }, asleep, signal);
      await removeAsleep(place.folder);
      undo.move();
      return machine;
    } catch (error) {
      const known = PolydevError.from(error, 'machine_resume_failed');
      throw new PolydevError('machine_resume_failed', known.message, { cause: error, lines: known.lines });
    }
  }

  /** Network and hypervisor of a guest that boots or wakes. What it leaves when it fails is the caller's to reclaim. */
  async #run(
    guest: { spec: MachineSpec; image: ImageId; owner: number; mark: string },
    asleep: Asleep | undefined,
    signal: AbortSignal,
  ): Promise<QemuMachine> {
    const { spec, image, owner, mark } = guest;
    const place = this.#place(spec.id);
    await mkdir(place.runFolder, { recursive: true, mode: 0o711 });
    await mkdir(logFolder(place.folder), { recursive: true, mode: 0o700 });
    const stamps: Stamp[] = [];
    let state: State | undefined;
    const sign = initSign(stamps, async () => {
      if (state !== undefined && this.#machines.has(spec.id)) await writeState(place.folder, state);
    });
    const consoles = await this.#openConsoles(place, owner, sign);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => consoles.close());
    const { network } = this.#options;
    const attachment = await network.attachTap(spec.id, spec.realm, signal, asleep?.address);
    let hypervisor: Hypervisor;
    try {
      hypervisor = await this.#launch(spec, image, { place, owner, attachment, mark, asleep }, signal);
    } catch (thrown) {
      const error = PolydevError.from(thrown, 'machine_start_failed');
      await consoles.flush();
      const last = await Promise.all(
        [place.folder, logFolder(place.folder)].map((folder) => Console.lastLines(folder, 20)),
      );
      const lines = last.flat().filter((line) => line !== '');
      const why = error.code === 'machine_start_failed' ? lines.at(-1) : undefined;
      throw new PolydevError(error.code, why === undefined ? error.message : `${error.message}: ${why}`, {
        cause: thrown,
        lines: [...error.lines, ...lines],
      });
    } finally {
      closeSync(attachment.tap);
    }
    stamps.unshift({ checkpoint: 'hypervisor', at: new Date().toISOString() });
    const { address } = attachment;
    state = {
      ...{ driver: 'qemu', spec, image, address, owner, mark },
      ...{ ...hypervisor.process, stamps },
    };
    await writeState(place.folder, state);
    undo.move();
    return this.#present(state, consoles, hypervisor.exited);
  }

  async #launch(
    spec: MachineSpec,
    image: ImageId,
    made: {
      place: Place;
      owner: number;
      attachment: Attachment & { tap: number };
      mark: string;
      asleep: Asleep | undefined;
    },
    signal: AbortSignal,
  ): Promise<Hypervisor> {
    const { place, owner, attachment, mark, asleep } = made;
    const { images } = this.#options;
    const parts = await this.#parts();
    const layers = await images.layerFiles(image);
    const config = join(place.runFolder, 'config.tar');
    const listen = { serial: AGENT_PORT_NAME, mark };
    const guest = guestConfig(spec, { attachment, listen, slowdown: this.slowdown });
    await rm(config, { force: true });
    await writeFile(config, configDrive(guest, spec, attachment), { mode: 0o400, flag: 'wx' });
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
    const files = {
      kernel: pass(openSync(parts.kernel, 'r')),
      initrd: pass(openSync(parts.initrd, 'r')),
      layers: layers.map((file) => pass(openSync(file, 'r'))),
      disk: pass(openSync(diskPath(place.folder), 'r+')),
      config: pass(openSync(config, 'r')),
      console: pass(Console.guestEnd(place.console)),
      qmp: pass(listenUnix(place.qmp, 4)),
      agent: pass(listenUnix(place.agent, 4)),
      tap: pass(attachment.tap, false),
      ...(asleep === undefined ? {} : { memory: pass(openSync(memoryFile(place.folder), 'r')) }),
    };
    for (const socket of [place.qmp, place.agent]) await chmod(socket, 0o600);
    const { accelerator } = this.#options;
    const memoryMiB = spec.limits.memoryMiB + OVERHEAD_MIB + (accelerator === 'tcg' ? TRANSLATION_MIB : 0);
    const plan = { accelerator, limits: spec.limits, kind: spec.kind, mac: attachment.mac, files };
    const argv = hypervisorArguments({ ...plan, hostname: hostnameOf(spec.id) });
    const limits = { memoryBytes: memoryMiB * MIB, cpus: spec.limits.cpus, pids: HYPERVISOR_PIDS };
    const { cgroup } = place;
    await recordStart(place.folder, { argv, files, parts, layers, uid: owner, cgroup, limits });
    const netns = attachment.namespace;
    return startHypervisor(
      {
        argv,
        inherit,
        output,
        uid: owner,
        group: accelerator === 'kvm' ? kvmGroup() : undefined,
        netns,
        cgroup,
        limits,
        qmpPath: place.qmp,
        wakes: asleep !== undefined,
      },
      signal,
    );
  }

  async #openConsoles(place: Place, owner: number, sign?: Sign): Promise<Consoles> {
    const guest = await Console.open(place.folder, place.console, owner, sign);
    const own = await Console.open(logFolder(place.folder), place.log, owner);
    const both = async (work: (one: Console) => Promise<void>): Promise<void> =>
      void (await Promise.all([guest, own].map(work)));
    return { flush: () => both((one) => one.flush()), close: () => both((one) => one.close()) };
  }

  #present(state: State, console: Consoles, ended: Promise<WaitStatus>): QemuMachine {
    const { id } = state.spec;
    const place = this.#place(id);
    let asleep = false;
    const channel = new GuestChannel(place.agent, state.mark);
    const machine = new QemuMachine(
      {
        spec: state.spec,
        image: state.image,
        address: state.address,
        stamps: state.stamps,
        process: { pid: state.pid, startTicks: state.startTicks },
        // A guest that sleeps has not ended.
        ended: ended.then((status) => (asleep ? new Promise<never>(() => undefined) : status)),
        console,
        consoleFolder: place.folder,
        channel,
        cgroup: place.cgroup,
        reclaim: (options) => this.reclaim(id, options),
      },
      async (signal) => {
        asleep = true;
        try {
          await this.#putToSleep(state, signal);
        } catch (error) {
          asleep = false;
          const known = PolydevError.from(error, 'machine_hibernate_failed');
          throw new PolydevError('machine_hibernate_failed', known.message, { cause: error });
        }
        channel[Symbol.dispose]();
        await this.reclaim(id, { disk: false });
        await console.close();
      },
    );
    this.#machines.set(id, machine);
    return machine;
  }

  /** Saves the guest beside its disk. A guest that could not be saved runs on. */
  async #putToSleep(state: State, signal: AbortSignal): Promise<void> {
    const { folder, runFolder, qmp: path } = this.#place(state.spec.id);
    const parts = await this.#parts();
    using qmp = await Qmp.connect(path, QMP_TIMEOUT_MS);
    const maker = await makerHere(this.#options.accelerator, parts.kernel, signal);
    await removeAsleep(folder);
    const to = { file: memoryFile(folder), socket: join(runFolder, 'save.sock'), owner: state.owner };
    await saveGuest(qmp, to, signal);
    await writeAsleep(folder, state, maker);
  }

  /** Throws `image_missing`. */
  async #parts(): Promise<{ kernel: string; initrd: string }> {
    const parts = await this.#options.images.vmParts();
    if (parts !== undefined) return parts;
    throw new PolydevError(
      'image_missing',
      'the kernel of virtual machines was not made: build it with --vm',
    );
  }

  async adopt(id: MachineId): Promise<Machine | undefined> {
    const known = this.#machines.get(id);
    if (known?.running === true) return known;
    const place = this.#place(id);
    const state = await readState(place.folder);
    if (state === undefined || !runs(state) || !existsSync(place.log)) return undefined;
    if (this.#options.network.attached(id) === undefined) return undefined;
    const console = await this.#openConsoles(place, state.owner);
    const { pid, startTicks } = state;
    return this.#present(state, console, this.#exits.watch({ pid, startTicks }));
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
    await releaseIds(this.#options.idLeases, folder);
  }

  evidence(id: MachineId): Promise<Record<string, string>> {
    return hypervisorEvidence(this.#place(id).folder);
  }

  journal(id: MachineId, ended: boolean): Promise<string> {
    return journalOnDisk(this.#place(id).folder, ended);
  }

  async inspect(spec: MachineSpec): Promise<GuestFacts | null> {
    const { folder, cgroup, qmp } = this.#place(spec.id);
    const known = limitFacts({ memoryMiB: spec.limits.memoryMiB, pids: HYPERVISOR_PIDS }, cgroup);
    const state = await readState(folder);
    if (known === null) return null;
    const pid = state !== undefined && runs(state) ? state.pid : undefined;
    const [diskKiB, hypervisor] = await Promise.all([diskSpace(folder), hypervisorFacts(pid, qmp)]);
    return { ...known, diskKiB, hypervisor };
  }

  /** Takes back what belongs to no machine of `keep`; see the namespace driver. Disks stay: they are the manager's. */
  async reclaimOrphans(keep: ReadonlySet<string>): Promise<void> {
    const { instance, runFolder, idLeases, machinesFolder } = this.#options;
    const seen = new Set<string>([
      ...(await listIfThere(join(runFolder, 'm'))),
      ...cgroupChildren(cgroupOfInstance(instance)),
    ]);
    for (const name of seen) {
      const id = MachineId.safeParse(name);
      if (id.success && !keep.has(name)) await this.reclaim(id.data, { disk: false });
    }
    for (const { number, owner } of await idLeases.list()) {
      if (owner.startsWith(`${machinesFolder}/`) && !existsSync(owner)) await idLeases.release(number, owner);
    }
  }

  /** Ends watching. Machines that run go on running; without any, the instance's cgroups go too. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exits[Symbol.dispose]();
    const cgroup = cgroupOfInstance(this.#options.instance);
    if (cgroupProcesses(cgroup).length === 0) await removeCgroup(cgroup);
  }
}
