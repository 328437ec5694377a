/**
 * host/drivers/firecracker/: machines as microVMs under Firecracker, each in its jail: own user, root folder, network namespace and
 * control group. The image's layers as read-only disks below a private one, the agent's channel as a virtual socket. Needs KVM.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId, MachineId } from '../../../protocol/ids.ts';
import type { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import { Console, type LineWatch, readConsole } from '../../machines/console.ts';
import { cgroupProcesses, removeCgroup } from '../../system/cgroups.ts';
import { ExitWatch } from '../../system/exit.ts';
import { listIfThere, removeTree } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import { endProcess, runs } from '../../system/processes.ts';
import { unmount, type WaitStatus } from '../../system/syscalls.ts';
import type { Driver, DriverReport, Machine, Template } from '../driver.ts';
import { takeBackCgroups, takeBackOrphans } from '../orphans.ts';
import type { Dial } from '../vm/agent.ts';
import { stampHypervisor, watchBoot } from '../vm/boot-watch.ts';
import { copyDisk, diskOwner, ensureDisk, removeDisk } from '../vm/disk.ts';
import { journalOnDisk } from '../vm/journal.ts';
import { requireKvm } from '../vm/kvm.ts';
import { asNobody, SavedGuest, tellWhoItIs, untilSettled } from '../vm/template.ts';
import { type Binaries, findBinaries } from './binaries.ts';
import { VsockChannel } from './channel.ts';
import { whileItRuns } from './hypervisor.ts';
import { IN_JAIL, jailId, jailRoot } from './jail.ts';
import { type Beginning, configOf, launchGuest, withLastLines } from './launch.ts';
import { FirecrackerMachine } from './machine.ts';
import { type FirecrackerDriverOptions, type Place, placeOf } from './options.ts';
import { probe } from './probe.ts';
import { saveGuest } from './sleep.ts';
import {
  asleepFolder,
  readAsleep,
  readState,
  removeAsleep,
  removeState,
  type State,
  writeState,
} from './state.ts';
import { keepAsTemplate, type Saved, templateDisk, templateFolder } from './template.ts';

export class FirecrackerDriver implements Driver {
  readonly name = 'firecracker';
  readonly sleep = 'disk';
  readonly slowdown: number;
  readonly #options: FirecrackerDriverOptions;
  readonly #exits = new ExitWatch();
  readonly #machines = new Map<MachineId, FirecrackerMachine>();
  readonly #logs = new Map<MachineId, Console[]>();

  constructor(options: FirecrackerDriverOptions) {
    this.#options = options;
    this.slowdown = options.slowdown;
    mkdirSync(join(options.runFolder, 'm'), { recursive: true, mode: 0o711 });
  }

  #binaries(signal: AbortSignal): Promise<Binaries> {
    return findBinaries(this.#options, signal);
  }

  probe(signal: AbortSignal): Promise<DriverReport> {
    const { instance, machinesFolder, slowdown, idLeases, images } = this.#options;
    const folder = join(dirname(machinesFolder), 'firecracker-trial');
    const binaries = (limit: AbortSignal): Promise<Binaries> => this.#binaries(limit);
    return probe({ instance, folder, slowdown, idLeases, binaries, parts: () => images.vmParts() }, signal);
  }

  #place(id: MachineId): Place {
    return placeOf(this.#options, id);
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const running = this.#machines.get(spec.id);
    if (running?.running === true) return running;
    const adopted = await this.adopt(spec.id);
    return adopted ?? this.#boot(spec, signal);
  }

  /** Starts a machine on its own disk: a new one, or the one that it left. */
  async #boot(spec: MachineSpec, signal: AbortSignal): Promise<FirecrackerMachine> {
    // Also a guest that slept: it knows another state of the disk than the one that boots now will leave.
    await this.reclaim(spec.id, { disk: false });

    const image = spec.image ?? (await this.#options.images.current())?.id;
    if (image === undefined) throw new PolydevError('image_missing', 'this host has no current image');
    const place = this.#place(spec.id);
    const newDisk = diskOwner(place.folder) === undefined;
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: newDisk }));
    const owner = await this.#prepare(place.folder);
    await ensureDisk(place.folder, spec, owner, signal);
    const machine = await this.#run({ spec, image, owner }, { how: 'boots' }, signal);
    undo.move();
    return machine;
  }

  /** No console of an earlier run, and ids. */
  async #prepare(folder: string): Promise<number> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await Console.forget(folder);
    return claimIds(this.#options.idLeases, folder, diskOwner(folder));
  }

  async makeTemplate(like: MachineSpec, signal: AbortSignal): Promise<Template> {
    const { spec, token } = asNobody(like);
    const { folder } = this.#place(spec.id);
    const release = async (): Promise<void> => {
      await this.reclaim(spec.id, { disk: true });
      await removeTree(folder);
    };
    await using undo = new AsyncDisposableStack();
    undo.defer(release);
    const machine = await this.#boot(spec, signal);
    await untilSettled(machine, token, this.slowdown, signal);
    await machine.hibernate(signal);
    signal.throwIfAborted();
    await keepAsTemplate(folder, this.slowdown, signal);
    await releaseIds(this.#options.idLeases, folder);
    const saved = { folder, image: machine.image, token };
    const template = new SavedGuest((copy, limit) => this.#copy(saved, copy, limit), release);
    undo.move();
    return template;
  }

  /** Firecracker writes the whole memory out; most of it is given back afterwards. */
  templateDiskMiB({ limits }: MachineSpec): number {
    return limits.memoryMiB;
  }

  async #copy(saved: Saved, spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const { folder } = this.#place(spec.id);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: true }));
    await this.reclaim(spec.id, { disk: true });
    const owner = await this.#prepare(folder);
    await copyDisk(folder, templateDisk(saved.folder), owner, signal);
    const begins = { how: 'copies' as const, folder: templateFolder(saved.folder), token: saved.token };
    const machine = await this.#run({ spec, image: saved.image, owner }, begins, signal);
    undo.move();
    return machine;
  }

  async asleep(id: MachineId): Promise<boolean> {
    const { folder } = this.#place(id);
    if ((await readAsleep(folder)) === undefined) return false;
    // The host service was killed after the guest was saved and before its hypervisor was ended.
    if ((await readState(folder)) !== undefined) await this.#release(id);
    return true;
  }

  async resume(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const place = this.#place(spec.id);
    const asleep = await readAsleep(place.folder);
    if (asleep === undefined) throw new PolydevError('not_found', `no guest of ${spec.id} sleeps here`);
    await this.#release(spec.id);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: false }));
    try {
      const begins = { how: 'wakes' as const, folder: asleepFolder(place.folder), address: asleep.address };
      const machine = await this.#run({ ...asleep, spec }, begins, signal);
      await removeAsleep(place.folder);
      undo.move();
      return machine;
    } catch (error) {
      const known = PolydevError.from(error, 'machine_resume_failed');
      throw new PolydevError('machine_resume_failed', known.message, { cause: error, lines: known.lines });
    }
  }

  /**
   * Jail, network and hypervisor of a guest; one that wakes has its address already, and a copy, which knows the template's token, is
   * told who it is. What it leaves when it fails is the caller's to reclaim.
   */
  async #run(
    guest: { spec: MachineSpec; image: ImageId; owner: number; copied?: boolean },
    begins: Beginning & { address?: string; token?: string },
    signal: AbortSignal,
  ): Promise<FirecrackerMachine> {
    const { spec, image, owner } = guest;
    const place = this.#place(spec.id);
    const files = await this.#files(image);
    await mkdir(place.runFolder, { recursive: true, mode: 0o711 });
    const stamps: Stamp[] = [];
    let state: State | undefined;
    const watch = this.#watchBoot(spec.id, stamps, () => state);
    const console = await Console.open(place.folder, place.console, owner, watch);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => console.close());
    await this.#openLogs(spec.id, owner);
    const { network } = this.#options;
    const attachment = await network.attachNamedTap(
      spec.id,
      spec.realm,
      { owner, wanted: begins.address },
      signal,
    );
    const output = Console.guestEnd(place.console);
    try {
      const binaries = await this.#binaries(signal);
      requireKvm();
      const root = jailRoot(place.jailBase, binaries.firecracker, jailId(spec.id));
      const hypervisor = await launchGuest(
        {
          spec,
          ...files,
          place,
          root,
          owner,
          attachment,
          binaries,
          output,
          begins,
          slowdown: this.slowdown,
          connect: () => network.connectNamedTap(spec.id, spec.realm, signal),
        },
        signal,
      );
      stampHypervisor(stamps);
      const { slowdown } = this;
      if (begins.token !== undefined) {
        using channel = new VsockChannel(join(root, IN_JAIL.vsock), slowdown);
        const dial: Dial = (port, limit) => channel.dial(port, limit);
        const self = { config: configOf({ spec, attachment, slowdown }), attachment };
        await whileItRuns(hypervisor, tellWhoItIs(dial, begins.token, self, signal));
        // What it is a copy of has booted it.
        stamps.push({ checkpoint: 'kernel', at: new Date().toISOString() });
      }
      const { address } = attachment;
      const { version } = binaries;
      const copied = begins.token !== undefined || guest.copied === true;
      const record = { driver: 'firecracker' as const, spec, image, address, owner, root, version, copied };
      // Whoever takes the machine over after us finds one that knows who it is, or none.
      state = { ...record, ...hypervisor.process, stamps };
      await writeState(place.folder, state);
      undo.move();
      return this.#present(state, console, hypervisor.exited);
    } catch (thrown) {
      throw await withLastLines(thrown, place.folder, console);
    } finally {
      Console.closeGuestEnd(output);
    }
  }

  /** Follows a boot on the guest's console; what is seen is written down with the state, once there is one. */
  #watchBoot(id: MachineId, stamps: Stamp[], state: () => State | undefined): LineWatch {
    const keep = async (): Promise<void> => {
      const now = state();
      if (now !== undefined && this.#machines.has(id)) await writeState(this.#place(id).folder, now);
    };
    return watchBoot({ stamps, keep });
  }

  /** Firecracker's own log and metrics go through pipes, of which the beginning and the end are kept. */
  async #openLogs(id: MachineId, owner: number): Promise<void> {
    const { pipes } = this.#place(id);
    const open = await Promise.all(
      pipes.map(async ({ pipe, kept }) => {
        await mkdir(kept, { recursive: true, mode: 0o700 });
        return Console.open(kept, pipe, owner);
      }),
    );
    this.#logs.set(id, open);
  }

  /** What a guest of that image starts from. Throws `image_missing`. */
  async #files(image: ImageId): Promise<{ kernel: string; initrd: string; layers: string[] }> {
    const { images } = this.#options;
    const parts = await images.vmParts();
    if (parts === undefined) {
      throw new PolydevError(
        'image_missing',
        'the kernel of virtual machines was not made: build it with --vm',
      );
    }
    return { kernel: parts.kernel, initrd: parts.initrd, layers: await images.layerFiles(image) };
  }

  #present(state: State, console: Console, ended: Promise<WaitStatus>): FirecrackerMachine {
    const { id } = state.spec;
    const place = this.#place(id);
    let asleep = false;
    const machine = new FirecrackerMachine(
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
        channel: new VsockChannel(join(state.root, IN_JAIL.vsock), this.slowdown),
        cgroup: `${place.cgroup}/${jailId(id)}`,
        slowdown: this.slowdown,
        copied: state.copied,
        reclaim: (options) => this.reclaim(id, options),
      },
      async () => {
        asleep = true;
        try {
          await saveGuest(state, place, this.slowdown);
        } catch (error) {
          asleep = false;
          const known = PolydevError.from(error, 'machine_hibernate_failed');
          throw new PolydevError('machine_hibernate_failed', known.message, { cause: error });
        }
        await this.#release(id);
        await console.close();
      },
    );
    this.#machines.set(id, machine);
    return machine;
  }

  async adopt(id: MachineId): Promise<Machine | undefined> {
    const known = this.#machines.get(id);
    if (known?.running === true) return known;
    const place = this.#place(id);
    const state = await readState(place.folder);
    if (state === undefined || !runs(state) || !existsSync(place.console)) return undefined;
    if (this.#options.network.attached(id) === undefined) return undefined;
    const booted = state.stamps.some(({ checkpoint }) => checkpoint === 'init');
    const watch = booted ? undefined : this.#watchBoot(id, state.stamps, () => state);
    const console = await Console.open(place.folder, place.console, state.owner, watch);
    await this.#openLogs(id, state.owner);
    const { pid, startTicks } = state;
    const machine = this.#present(state, console, this.#exits.watch({ pid, startTicks }));
    // What was seen before the machine was presented is not written down yet.
    if (!booted) await writeState(place.folder, state);
    return machine;
  }

  async reclaim(id: MachineId, options: { disk: boolean }): Promise<void> {
    await this.#release(id);
    const { folder } = this.#place(id);
    await removeAsleep(folder);
    if (!options.disk) return;
    await removeDisk(folder);
    await releaseIds(this.#options.idLeases, folder);
  }

  /** Takes back everything but the disk and a guest that sleeps. */
  async #release(id: MachineId): Promise<void> {
    const { folder, runFolder, cgroup, jailBase, pipes } = this.#place(id);
    await Promise.all(cgroupProcesses(cgroup).map((found) => endProcess(found, 0)));
    const state = await readState(folder);
    if (state !== undefined && runs(state)) await endProcess(state, 0);
    await removeCgroup(cgroup);
    await this.#options.network.detach(id);
    await Promise.all((this.#logs.get(id) ?? []).map((log) => log.close()));
    this.#logs.delete(id);
    // Mounts of a start that was cut short.
    for (const program of await listIfThere(jailBase)) unmount(join(jailBase, program, jailId(id), 'root'));
    await removeTree(jailBase);
    for (const { pipe } of pipes) await rm(pipe, { force: true });
    await removeTree(runFolder);
    await removeState(folder);
    this.#machines.delete(id);
  }

  async evidence(id: MachineId): Promise<Record<string, string>> {
    const { pipes } = this.#place(id);
    const [log = '', metrics = ''] = await Promise.all(pipes.map(({ kept }) => readConsole(kept)));
    return { 'firecracker.log': log, 'firecracker-metrics.log': metrics };
  }

  journal(id: MachineId, ended: boolean): Promise<string> {
    return journalOnDisk(this.#place(id).folder, ended);
  }

  /** Takes back what belongs to no machine of `keep`. Disks stay: they are the manager's. */
  async reclaimOrphans(keep: ReadonlySet<string>): Promise<void> {
    const { instance, runFolder, idLeases, machinesFolder } = this.#options;
    const reclaim = (id: MachineId): Promise<void> => this.reclaim(id, { disk: false });
    const folders = [join(runFolder, 'm')];
    await takeBackOrphans({ instance, folders, machinesFolder, idLeases, reclaim }, keep);
  }

  /** Ends watching. Machines that run go on running; without any, the instance's cgroups go too. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exits[Symbol.dispose]();
    await Promise.all([...this.#logs.values()].flat().map((log) => log.close()));
    await takeBackCgroups(this.#options.instance);
  }
}
