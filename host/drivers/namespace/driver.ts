/**
 * host/drivers/namespace/: machines as Linux namespaces under runc. The image's layers below a private overlay, a user
 * namespace with ids of its own for each machine, the agent's channel as an inherited socket.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PolydevError } from '../../../protocol/errors.ts';
import { ImageId, type MachineId } from '../../../protocol/ids.ts';
import { DEFAULT_DISK_MIB, type GuestConfig, MachineSpec, Stamp } from '../../../protocol/machine.ts';
import type { GuestFacts } from '../../evidence/facts.ts';
import { Console } from '../../machines/console.ts';
import type { Attachment, Network } from '../../network/network.ts';
import { cgroupOfInstance, isFrozen, thawCgroup } from '../../system/cgroups.ts';
import { ExitWatch } from '../../system/exit.ts';
import { parseJson, readIfThere, removeTree, writeAtomic } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import type { Leases } from '../../system/leases.ts';
import { runs } from '../../system/processes.ts';
import { closeUserNamespace, openUserNamespace } from '../../system/userns.ts';
import type { Driver, DriverReport, Machine } from '../driver.ts';
import { takeBackCgroups, takeBackOrphans } from '../orphans.ts';
import { closeChannel, openChannel } from './channel.ts';
import { type ContainerPlace, RUNTIME_FILES, removeContainer, startContainer } from './container.ts';
import { closeDisk, diskOwner, openDisk } from './disk.ts';
import { guestFacts } from './facts.ts';
import { NamespaceMachine } from './machine.ts';
import { probe } from './probe.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';

/** What the driver needs of the image store. */
export interface ImageSource {
  current(): Promise<{ id: ImageId } | undefined>;
  /** Mount points of the layers, top first. */
  mount(id: string): Promise<{ layers: string[] }>;
}

export interface NamespaceDriverOptions {
  instance: string;
  /** `<machinesFolder>/<id>` holds what survives a stop: disk, console, state. */
  machinesFolder: string;
  /** Folder below /run that every user may pass through. */
  runFolder: string;
  images: ImageSource;
  network: Network;
  /** Claims on ranges of host ids, shared by all instances of this host. */
  idLeases: Leases;
  /** The guest's first program; the default is the agent below tini. */
  argv?: readonly string[];
}

const AGENT_ARGV = ['/usr/bin/tini', '--', '/usr/local/bin/node', '/opt/polydev/agent/main.mjs'];
/** Characters kept of each of the runtime's files. */
const MAX_EVIDENCE = 256 * 1024;
/** The guest's inherited end of the channel. */
const CHANNEL_FD = 3;

const State = z.object({
  driver: z.literal('namespace').default('namespace'),
  spec: MachineSpec,
  image: ImageId,
  address: z.string(),
  firstId: z.number().int(),
  pid: z.number().int(),
  startTicks: z.number().int(),
  stamps: z.array(Stamp),
});
type State = z.infer<typeof State>;

export class NamespaceDriver implements Driver {
  readonly name = 'namespace';
  readonly sleep = 'frozen';
  readonly slowdown = 1;
  readonly #options: NamespaceDriverOptions;
  readonly #exits = new ExitWatch();
  readonly #machines = new Map<MachineId, NamespaceMachine>();

  constructor(options: NamespaceDriverOptions) {
    this.#options = options;
    mkdirSync(join(options.runFolder, 'm'), { recursive: true, mode: 0o711 });
  }

  probe(signal: AbortSignal): Promise<DriverReport> {
    const { instance, runFolder, images, idLeases } = this.#options;
    return probe({ instance, runFolder, images, idLeases, exits: this.#exits }, signal);
  }

  #place(id: MachineId): ContainerPlace {
    const { runFolder, instance } = this.#options;
    return {
      id,
      runcRoot: join(runFolder, 'runc'),
      runFolder: join(runFolder, 'm', id),
      recordFolder: this.#folder(id),
      cgroup: `${cgroupOfInstance(instance)}/${id}`,
    };
  }

  #folder(id: MachineId): string {
    return join(this.#options.machinesFolder, id);
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const running = this.#machines.get(spec.id);
    if (running?.running === true) return running;
    const adopted = await this.adopt(spec.id);
    if (adopted !== undefined) return adopted;
    await this.reclaim(spec.id, { disk: false });

    const { images, network, idLeases } = this.#options;
    const image = spec.image ?? (await images.current())?.id;
    if (image === undefined) throw new PolydevError('image_missing', 'this host has no current image');
    const folder = this.#folder(spec.id);
    const place = this.#place(spec.id);
    const newDisk = diskOwner(folder) === undefined;
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.reclaim(spec.id, { disk: newDisk }));

    await mkdir(folder, { recursive: true, mode: 0o700 });
    await Console.forget(folder);
    const firstId = await claimIds(idLeases, folder, diskOwner(folder));
    // The machine's root is mounted in there: nobody else on this host may look into it.
    await mkdir(place.runFolder, { recursive: true });
    await chown(place.runFolder, 0, firstId);
    await chmod(place.runFolder, 0o710);
    const [attachment, rootfs, console] = await settleAll([
      network.attach(spec.id, spec.realm, signal),
      this.#prepareRootfs(spec, image, firstId, signal),
      Console.open(folder, join(place.runFolder, 'console'), firstId).then((opened) => {
        undo.defer(() => opened.close());
        return opened;
      }),
    ]);
    await writeConfig(place.runFolder, guestConfig(spec, attachment), firstId);
    const container = await this.#launch(
      place,
      spec,
      { rootfs, netns: attachment.namespace, firstId },
      signal,
    );
    const stamps: Stamp[] = [
      { checkpoint: 'hypervisor', at: container.createdAt.toISOString() },
      { checkpoint: 'kernel', at: container.createdAt.toISOString() },
      { checkpoint: 'init', at: new Date().toISOString() },
    ];
    const state: State = {
      driver: this.name,
      spec,
      image,
      address: attachment.address,
      firstId,
      ...container.process,
      stamps,
    };
    await writeAtomic(join(folder, 'driver.json'), JSON.stringify(state));
    undo.move();
    return this.#present(state, console);
  }

  async #prepareRootfs(
    spec: MachineSpec,
    image: ImageId,
    firstId: number,
    signal: AbortSignal,
  ): Promise<string> {
    const volatile = spec.kind === 'browser';
    const sizeMiB = spec.limits.diskMiB ?? DEFAULT_DISK_MIB[spec.kind];
    const opening = openUserNamespace(firstId, signal);
    try {
      const [userNamespace, { layers }, diskFolder] = await settleAll([
        opening,
        this.#options.images.mount(image),
        openDisk({ folder: this.#folder(spec.id), sizeMiB, firstId, volatile }, signal),
      ]);
      const { runFolder } = this.#place(spec.id);
      return mountRootfs({ layers, diskFolder, runFolder, userNamespace, firstId, volatile });
    } catch (error) {
      if (error instanceof PolydevError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new PolydevError('machine_start_failed', `root file system: ${why}`, { cause: error });
    } finally {
      await opening.then(closeUserNamespace, () => undefined);
    }
  }

  async #launch(
    place: ContainerPlace,
    spec: MachineSpec,
    where: { rootfs: string; netns: string; firstId: number },
    signal: AbortSignal,
  ) {
    const channel = openChannel(join(place.runFolder, 'agent.sock'));
    try {
      const output = Console.guestEnd(join(place.runFolder, 'console'));
      try {
        const plan = {
          ...where,
          argv: this.#options.argv ?? AGENT_ARGV,
          hostname: hostnameOf(spec.id),
          limits: spec.limits,
          cgroup: place.cgroup,
          configFolder: join(place.runFolder, 'config'),
        };
        return await startContainer(place, plan, { output, inherit: [channel] }, signal);
      } finally {
        Console.closeGuestEnd(output);
      }
    } finally {
      closeChannel(channel);
    }
  }

  #present(state: State, console: Console): NamespaceMachine {
    const { id } = state.spec;
    const machine = new NamespaceMachine({
      ...state,
      process: { pid: state.pid, startTicks: state.startTicks },
      exits: this.#exits,
      console,
      consoleFolder: this.#folder(id),
      channelPath: join(this.#place(id).runFolder, 'agent.sock'),
      cgroup: this.#place(id).cgroup,
      reclaim: (options) => this.reclaim(id, options),
    });
    this.#machines.set(id, machine);
    return machine;
  }

  async adopt(id: MachineId): Promise<Machine | undefined> {
    const known = this.#machines.get(id);
    if (known?.running === true) return known;
    const state = await readState(this.#folder(id));
    if (state === undefined) return undefined;
    const fifo = join(this.#place(id).runFolder, 'console');
    const alive = runs({ pid: state.pid, startTicks: state.startTicks });
    if (!alive || !existsSync(fifo) || this.#options.network.attached(id) === undefined) return undefined;
    return this.#present(state, await Console.open(this.#folder(id), fifo, state.firstId));
  }

  /** A frozen machine holds all it held, its memory included; what ends the host ends it. */
  async asleep(id: MachineId): Promise<boolean> {
    const state = await readState(this.#folder(id));
    return state !== undefined && runs(state) && isFrozen(this.#place(id).cgroup);
  }

  async resume(spec: MachineSpec, _signal: AbortSignal): Promise<Machine> {
    const { id } = spec;
    if ((await readState(this.#folder(id))) === undefined) {
      throw new PolydevError('not_found', `machine ${id} does not sleep here`);
    }
    thawCgroup(this.#place(id).cgroup);
    const machine = await this.adopt(id);
    if (machine !== undefined) return machine;
    throw new PolydevError('machine_resume_failed', `machine ${id} ended while it slept`);
  }

  async reclaim(id: MachineId, options: { disk: boolean }): Promise<void> {
    const place = this.#place(id);
    const folder = this.#folder(id);
    await removeContainer(place);
    await unmountRootfs(place.runFolder);
    await closeDisk(folder, { remove: options.disk });
    await this.#options.network.detach(id);
    await removeTree(place.runFolder);
    await rm(join(folder, 'driver.json'), { force: true });
    this.#machines.delete(id);
    if (options.disk) await releaseIds(this.#options.idLeases, folder);
  }

  async evidence(id: MachineId): Promise<Record<string, string>> {
    const files: Record<string, string> = {};
    for (const name of Object.values(RUNTIME_FILES)) {
      const text = await readIfThere(join(this.#folder(id), name));
      if (text !== undefined) files[name] = text.slice(-MAX_EVIDENCE);
    }
    return files;
  }

  inspect(spec: MachineSpec): Promise<GuestFacts | null> {
    return guestFacts(spec.limits, this.#place(spec.id).cgroup, this.#folder(spec.id));
  }

  /**
   * Takes back what belongs to no machine of `keep`: left by a host service that was killed in the middle of
   * something. Disks stay: they are the manager's.
   */
  async reclaimOrphans(keep: ReadonlySet<string>): Promise<void> {
    const { instance, runFolder, idLeases, machinesFolder } = this.#options;
    const reclaim = (id: MachineId): Promise<void> => this.reclaim(id, { disk: false });
    const folders = [join(runFolder, 'm'), join(runFolder, 'runc')];
    await takeBackOrphans({ instance, folders, machinesFolder, idLeases, reclaim }, keep);
  }

  /** Ends watching. Machines that run go on running; without any, the instance's cgroups go too. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exits[Symbol.dispose]();
    await takeBackCgroups(this.#options.instance);
  }
}

/** What is known of a machine that was started. A file that a loss of power left empty says as much as none. */
async function readState(folder: string): Promise<State | undefined> {
  const text = await readIfThere(join(folder, 'driver.json'));
  return text === undefined ? undefined : State.safeParse(parseJson(text)).data;
}

/** Waits for all even when one fails, so that undoing never runs beside doing; then throws the first failure. */
async function settleAll<T extends readonly unknown[]>(
  work: {
    [K in keyof T]: Promise<T[K]>;
  },
): Promise<T> {
  await Promise.allSettled(work);
  return (await Promise.all(work)) as unknown as T;
}

export const hostnameOf = (id: MachineId): string => id.replace('_', '-').slice(0, 12);

function guestConfig(spec: MachineSpec, attachment: Attachment): GuestConfig {
  return {
    version: 1,
    machineId: spec.id,
    kind: spec.kind,
    realm: spec.realm,
    hostname: hostnameOf(spec.id),
    display: spec.display,
    agentTokenHash: spec.agentTokenHash,
    dns: attachment.dns,
    ...(attachment.ca === undefined ? {} : { ca: attachment.ca }),
    listen: { fd: CHANNEL_FD },
  };
}

/** The config drive: readable by root inside the machine only. */
async function writeConfig(runFolder: string, config: GuestConfig, firstId: number): Promise<void> {
  const folder = join(runFolder, 'config');
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
  const path = join(folder, 'config.json');
  await writeFile(path, JSON.stringify(config), { mode: 0o400 });
  await chown(path, firstId, firstId);
}
