/**
 * host/network/: the network of one instance. Machines sit behind a router namespace; two realms share it and never
 * meet: `internet` machines reach public addresses, `test` machines reach the test identity provider.
 */
import { closeSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import type { NetworkFacts } from '../evidence/facts.ts';
import { listIfThere, readIfThere, writeAtomic } from '../system/files.ts';
import { Leases } from '../system/leases.ts';
import { processesInNetworkNamespace } from '../system/processes.ts';
import {
  type AddressPlan,
  chooseSubnet,
  formatAddress,
  idpNamespace,
  machineNamespace,
  macOf,
  namespacePath,
  namespacePrefix,
  parseAddress,
  planSubnet,
  portName,
  routerNamespace,
} from './addresses.ts';
import { forwardingConfig, hostResolvers, startDns } from './dns.ts';
import { Glance } from './glance.ts';
import { type Idp, reclaimIdp, startIdp } from './idp.ts';
import { inspectNetwork, type NetworkPlace } from './inspect.ts';
import { closeMachinePort, joinMachineTap, openMachinePort, openMachineTap, openNamedTap } from './port.ts';
import { buildRouter, endRouterProcesses, removeNamespace, removeRouter } from './router.ts';
import type { Service } from './service.ts';
import { hostRoutes, openUplink, removeUplink } from './uplink.ts';

export interface NetworkSettings {
  instance: string;
  /** Folder of this instance below /run: leases, generated files, mounts. Others must be able to pass through it. */
  runFolder: string;
  /** Where the test identity provider keeps its authority. */
  idpStateFolder: string;
  uplink: 'nat' | 'none';
  subnet: string;
  /** Resolvers that `internet` machines' names are asked from; default: the host's own. */
  resolvers?: readonly string[] | undefined;
  /** Shared by every instance of this host. */
  forwardingFolder: string;
  /** The namespace that stands for the host; default: its own. For tests. */
  hostNetns?: string | undefined;
  idp: { checkout: string; nodePath: string; script: string };
  /** Owners of the helper processes. */
  uids: { routerDns: number; idpDns: number; idp: number };
  /** How many times longer than usual programs may take to start, where the computer is emulated; default 1. */
  slowdown?: number | undefined;
  log: Logger;
}

/** What a machine gets. */
export interface Attachment {
  /** Path of its network namespace. */
  namespace: string;
  address: string;
  /** Of the machine's own interface, and of the router. */
  mac: string;
  gateway: { address: string; mac: string };
  dns: string[];
  /** PEM; only in the test realm. */
  ca?: string;
}

const Recorded = z.object({ cidr: z.string(), resolvers: z.array(z.string()) });

export class Network implements AsyncDisposable {
  readonly plan: AddressPlan;
  /** What the operator should know: that another subnet was taken. */
  readonly notices: readonly string[];
  readonly #resolvers: readonly string[];
  readonly #settings: NetworkSettings;
  readonly #leases: Leases;
  readonly #addresses = new Map<MachineId, string>();
  readonly #testMachines = new Set<MachineId>();
  readonly #glance = new Glance();
  #cursor: number;
  #dns: Service | undefined;
  #idp: Idp | undefined;
  /** Starts and ends of the identity provider follow each other. */
  #idpQueue: Promise<unknown> = Promise.resolve();

  private constructor(
    settings: NetworkSettings,
    plan: AddressPlan,
    resolvers: readonly string[],
    notices: string[],
  ) {
    this.#resolvers = resolvers;
    this.#settings = settings;
    this.plan = plan;
    this.notices = notices;
    this.#leases = new Leases(join(settings.runFolder, 'addresses'));
    this.#cursor = plan.firstMachine;
  }

  /**
   * Builds the router, or takes over the one an earlier host service left if machines of `adopt` still use it.
   * Whatever else is left of this instance goes. Throws `network_setup_failed`; nothing new is left behind then.
   */
  static async open(
    settings: NetworkSettings,
    adopt: readonly { id: MachineId; realm: Realm }[],
    signal: AbortSignal,
  ): Promise<Network> {
    const { instance, runFolder, log } = settings;
    const record = join(runFolder, 'network.json');
    const left = await readIfThere(record);
    const takeOver =
      adopt.length > 0 && left !== undefined && existsSync(namespacePath(routerNamespace(instance)));
    await using undo = new AsyncDisposableStack();
    let plan: AddressPlan;
    let resolvers: readonly string[];
    const notices: string[] = [];
    if (takeOver) {
      const recorded = Recorded.parse(JSON.parse(left));
      plan = planSubnet(recorded.cidr);
      resolvers = recorded.resolvers;
      await endRouterProcesses(instance);
    } else {
      await removeEverything(settings);
      const routes = settings.uplink === 'nat' ? await hostRoutes(settings.hostNetns) : [];
      const choice = chooseSubnet(settings.subnet, routes);
      plan = choice.plan;
      if (choice.notice !== undefined) notices.push(choice.notice);
      resolvers = settings.uplink === 'nat' ? (settings.resolvers ?? (await hostResolvers())) : [];
      undo.defer(() => removeEverything(settings));
      await buildRouter(instance, plan, resolvers, signal);
      if (settings.uplink === 'nat') await openUplink(settings, plan, resolvers, signal);
      await writeAtomic(record, JSON.stringify({ cidr: plan.cidr, resolvers }));
    }
    const network = new Network(settings, plan, resolvers, notices);
    const kept = takeOver ? adopt : [];
    await network.#adopt(kept, signal);
    network.#dns = undo.use(
      await startDns(
        {
          name: 'router-dns',
          folder: runFolder,
          config: forwardingConfig(plan.gateway, resolvers),
          netns: namespacePath(routerNamespace(instance)),
          uid: settings.uids.routerDns,
          log,
        },
        signal,
      ),
    );
    undo.move();
    return network;
  }

  /** Takes over what running machines hold and gives back the rest. */
  async #adopt(machines: readonly { id: MachineId; realm: Realm }[], signal: AbortSignal): Promise<void> {
    const { instance } = this.#settings;
    const owners = new Map<string, Realm>(machines.map(({ id, realm }) => [id, realm]));
    for (const { number, owner } of await this.#leases.list()) {
      const realm = owners.get(owner);
      if (realm === undefined) {
        await this.#leases.release(number, owner);
        continue;
      }
      const id = owner as MachineId; // it is a key of `owners`
      this.#addresses.set(id, formatAddress(number));
      if (realm === 'test') this.#testMachines.add(id);
    }
    const known = new Set([
      routerNamespace(instance),
      idpNamespace(instance),
      ...machines.map(({ id }) => machineNamespace(instance, id)),
    ]);
    for (const name of await instanceNamespaces(instance)) if (!known.has(name)) await removeNamespace(name);
    if (this.#testMachines.size > 0) await this.#needIdp(signal);
    else await reclaimIdp(instance, this.#idpFolder);
  }

  get #idpFolder(): string {
    return join(this.#settings.runFolder, 'idp');
  }

  /** Reasons why machines would not get a working network now. */
  problems(): string[] {
    const problems: string[] = [];
    if (this.#settings.uplink === 'nat' && this.#resolvers.length === 0) {
      problems.push('this host names no resolver that machines could use: set "resolvers"');
    }
    if (this.#dns?.alive !== true) problems.push('the resolver of the router does not run');
    return problems;
  }

  /** Whether this machine's namespace is there and its address known. */
  attached(id: MachineId): Attachment | undefined {
    const address = this.#addresses.get(id);
    const namespace = namespacePath(machineNamespace(this.#settings.instance, id));
    if (address === undefined || !existsSync(namespace)) return undefined;
    return this.#describe(id, namespace, address);
  }

  #describe(id: MachineId, namespace: string, address: string): Attachment {
    const test = this.#testMachines.has(id);
    const ca = test ? this.#idp?.ca : undefined;
    return {
      namespace,
      address,
      mac: macOf(address),
      gateway: { address: this.plan.gateway, mac: macOf(this.plan.gateway) },
      dns: [test ? this.plan.idp : this.plan.gateway],
      ...(ca === undefined ? {} : { ca }),
    };
  }

  /** Gives a machine its namespace, address and realm. Throws `addresses_exhausted`, `network_setup_failed`. */
  async attach(id: MachineId, realm: Realm, signal: AbortSignal): Promise<Attachment> {
    const open = async (address: string): Promise<string> =>
      openMachinePort(this.#settings.instance, this.plan, { id, realm, address }, signal);
    const { namespace, address } = await this.#attach(id, realm, signal, async (free) => ({
      namespace: await open(free),
    }));
    return this.#describe(id, namespace, address);
  }

  /**
   * The same for a virtual machine; `tap` is the descriptor for its hypervisor, which the caller closes. `wanted`: the address of
   * a guest that has one already.
   */
  async attachTap(
    id: MachineId,
    realm: Realm,
    signal: AbortSignal,
    wanted?: string,
  ): Promise<Attachment & { tap: number }> {
    let descriptor: number | undefined;
    const open = async (free: string): Promise<{ namespace: string; tap: number }> => {
      const opened = await openMachineTap(this.#settings.instance, { id, realm, address: free }, signal);
      descriptor = opened.tap;
      return opened;
    };
    try {
      const { namespace, address, tap } = await this.#attach(id, realm, signal, open, wanted);
      return { ...this.#describe(id, namespace, address), tap };
    } catch (error) {
      if (descriptor !== undefined) closeSync(descriptor);
      throw error;
    }
  }

  /**
   * The same for a hypervisor that opens its link by name, as the user `owner`: connectNamedTap() follows once it did.
   * `wanted`: the address of a guest that has one already; `addresses_exhausted` when another machine has it now.
   */
  async attachNamedTap(
    id: MachineId,
    realm: Realm,
    options: { owner: number; wanted?: string | undefined },
    signal: AbortSignal,
  ): Promise<Attachment & { tap: string }> {
    const { owner, wanted } = options;
    const open = () => openNamedTap(this.#settings.instance, id, owner, signal);
    const { namespace, address, tap } = await this.#attach(id, realm, signal, open, wanted);
    return { ...this.#describe(id, namespace, address), tap };
  }

  /** Throws `network_setup_failed`. */
  async connectNamedTap(id: MachineId, realm: Realm, signal: AbortSignal): Promise<void> {
    const address = this.#addresses.get(id);
    if (address === undefined) throw new PolydevError('network_setup_failed', `${id} has no address`);
    await joinMachineTap(this.#settings.instance, { id, realm, address }, signal);
  }

  async #attach<T>(
    id: MachineId,
    realm: Realm,
    signal: AbortSignal,
    open: (address: string) => Promise<T>,
    wanted?: string,
  ): Promise<T & { address: string }> {
    const { instance } = this.#settings;
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.detach(id));
    if (existsSync(namespacePath(machineNamespace(instance, id)))) await this.detach(id);
    if (realm === 'test') this.#testMachines.add(id);
    const address = await this.#claim(id, wanted);
    // Both are awaited even when one fails, so that undoing never runs beside doing.
    const opening = open(address);
    const meeting = realm === 'test' ? this.#needIdp(signal) : Promise.resolve();
    await Promise.allSettled([opening, meeting]);
    await meeting;
    const opened = await opening;
    undo.move();
    return { ...opened, address };
  }

  async #claim(id: MachineId, wanted: string | undefined): Promise<string> {
    const { firstMachine, lastMachine } = this.plan;
    if (wanted !== undefined) {
      if (!(await this.#leases.claim(parseAddress(wanted), id))) {
        throw new PolydevError('addresses_exhausted', `another machine has ${wanted} now`);
      }
      this.#addresses.set(id, wanted);
      return wanted;
    }
    // Round and round, so that an address rests as long as possible before its next owner.
    for (let tried = 0; tried <= lastMachine - firstMachine; tried++) {
      const number = this.#cursor;
      this.#cursor = number === lastMachine ? firstMachine : number + 1;
      if (!(await this.#leases.claim(number, id))) continue;
      const address = formatAddress(number);
      this.#addresses.set(id, address);
      return address;
    }
    throw new PolydevError('addresses_exhausted', `no free address in ${this.plan.cidr}`);
  }

  /** What is so of a machine's network now; also of one that has none. */
  async inspect(id: MachineId, realm: Realm, active: boolean): Promise<NetworkFacts> {
    return inspectNetwork(await this.#placeOf(id, realm), active);
  }

  /** The same, cheaply: what all machines share is looked up for all of them. */
  async glance(id: MachineId, realm: Realm): Promise<NetworkFacts> {
    return this.#glance.look(await this.#placeOf(id, realm));
  }

  /** Addresses for machines: how many are taken, of how many. */
  async addresses(): Promise<NetworkFacts['leases']> {
    const { firstMachine, lastMachine } = this.plan;
    return { held: (await this.#leases.list()).length, size: lastMachine - firstMachine + 1 };
  }

  async #placeOf(id: MachineId, realm: Realm): Promise<NetworkPlace> {
    const { instance, idp } = this.#settings;
    return {
      namespace: machineNamespace(instance, id),
      router: namespacePath(routerNamespace(instance)),
      port: portName(id),
      namespaces: (await instanceNamespaces(instance)).filter(
        (name) => name !== routerNamespace(instance) && name !== idpNamespace(instance),
      ),
      address: this.#addresses.get(id),
      leases: await this.addresses(),
      resolver: realm === 'test' ? this.plan.idp : this.plan.gateway,
      provider: realm === 'test' ? this.plan.idp : undefined,
      nodePath: idp.nodePath,
    };
  }

  /** Takes everything back. Idempotent; its processes must be gone. */
  async detach(id: MachineId): Promise<void> {
    await closeMachinePort(this.#settings.instance, id, this.#addresses.get(id));
    this.#addresses.delete(id);
    for (const { number, owner } of await this.#leases.list()) {
      if (owner === id) await this.#leases.release(number, owner);
    }
    if (!this.#testMachines.delete(id) || this.#testMachines.size > 0) return;
    await this.#queueIdp(async () => {
      if (this.#testMachines.size > 0) return; // one came meanwhile
      const idp = this.#idp;
      this.#idp = undefined;
      await idp?.[Symbol.asyncDispose]();
    });
  }

  #queueIdp<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#idpQueue.then(work);
    this.#idpQueue = next.catch(() => undefined);
    return next;
  }

  #needIdp(signal: AbortSignal): Promise<void> {
    return this.#queueIdp(async () => {
      if (this.#idp !== undefined) return;
      const { instance, idp, idpStateFolder, uids, slowdown, log } = this.#settings;
      this.#idp = await startIdp(
        {
          instance,
          plan: this.plan,
          ...idp,
          stateFolder: idpStateFolder,
          runFolder: this.#idpFolder,
          uids: { idp: uids.idp, dns: uids.idpDns },
          slowdown,
          log,
        },
        signal,
      );
    });
  }

  /** Ends the resolvers and the identity provider and removes every namespace, link and rule. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queueIdp(async () => this.#idp?.[Symbol.asyncDispose]());
    await this.#dns?.[Symbol.asyncDispose]();
    await removeEverything(this.#settings);
  }
}

/** Names of the network namespaces that belong to an instance. */
export async function instanceNamespaces(instance: string): Promise<string[]> {
  return (await listIfThere('/run/netns')).filter((name) => name.startsWith(namespacePrefix(instance)));
}

async function removeEverything(settings: NetworkSettings): Promise<void> {
  const { instance, runFolder } = settings;
  await reclaimIdp(instance, join(runFolder, 'idp'));
  if (settings.uplink === 'nat') await removeUplink(settings);
  await removeRouter(instance);
  for (const name of await instanceNamespaces(instance)) {
    if (processesInNetworkNamespace(namespacePath(name)).length === 0) await removeNamespace(name);
  }
}
