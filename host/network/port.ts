/** One machine's network: a namespace of its own, one link into the router's bridge, one address. */
import { closeSync, existsSync } from 'node:fs';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import { run } from '../system/command.ts';
import { inNetworkNamespace, NO_HEADER, openTap } from '../system/syscalls.ts';
import {
  type AddressPlan,
  machineNamespace,
  macOf,
  namespacePath,
  portName,
  routerNamespace,
} from './addresses.ts';
import { closePort, openPort } from './rules.ts';

const failure = 'network_setup_failed';

/**
 * Makes the namespace, connects it and opens its port. Neighbours are fixed on both sides: nothing is learned from
 * what a machine says. closeMachinePort undoes it, by name.
 */
export async function openMachinePort(
  instance: string,
  plan: AddressPlan,
  machine: { id: MachineId; realm: Realm; address: string },
  signal: AbortSignal,
): Promise<string> {
  const { id, realm, address } = machine;
  const name = machineNamespace(instance, id);
  const port = portName(id);
  const router = namespacePath(routerNamespace(instance));
  await run(['ip', '-batch', '-'], {
    netns: router,
    input: [
      `netns add ${name}`,
      `link add ${port} type veth peer name eth0 address ${macOf(address)} netns ${name}`,
      `link set ${port} master br0 addrgenmode none`,
      `link set ${port} type bridge_slave isolated on`,
      `link set ${port} up`,
      `neigh replace ${address} lladdr ${macOf(address)} dev br0 nud permanent`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
  await Promise.all([
    run(['ip', '-batch', '-'], {
      netns: namespacePath(name),
      input: [
        'link set lo up',
        'link set eth0 addrgenmode none up',
        `addr add ${address}/32 dev eth0`,
        `route add ${plan.gateway} dev eth0`,
        `neigh replace ${plan.gateway} lladdr ${macOf(plan.gateway)} dev eth0 nud permanent`,
        `route add default via ${plan.gateway}`,
        '',
      ].join('\n'),
      failure,
      signal,
    }),
    run(['nft', '-f', '-'], {
      netns: router,
      input: openPort({ name: port, address, realm }),
      failure,
      signal,
    }),
  ]);
  return namespacePath(name);
}

interface TapPort {
  id: MachineId;
  realm: Realm;
  address: string;
}

/** Connects the TAP interface that is in the router to its bridge, and opens its port. */
async function connectTap(instance: string, machine: TapPort, signal: AbortSignal): Promise<void> {
  const { id, realm, address } = machine;
  const port = portName(id);
  const netns = namespacePath(routerNamespace(instance));
  await run(['ip', '-batch', '-'], {
    netns,
    input: [
      `link set ${port} master br0 addrgenmode none`,
      `link set ${port} type bridge_slave isolated on`,
      `link set ${port} up`,
      `neigh replace ${address} lladdr ${macOf(address)} dev br0 nud permanent`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
  await run(['nft', '-f', '-'], { netns, input: openPort({ name: port, address, realm }), failure, signal });
}

/**
 * The same for a virtual machine: its link is a TAP interface on the bridge, known to the hypervisor as a descriptor only.
 * The namespace stays empty; the hypervisor runs in it and sees no network. The caller closes `tap`.
 */
export async function openMachineTap(
  instance: string,
  machine: TapPort,
  signal: AbortSignal,
): Promise<{ namespace: string; tap: number }> {
  const name = machineNamespace(instance, machine.id);
  const router = namespacePath(routerNamespace(instance));
  const tap = inNetworkNamespace(router, () => {
    try {
      return openTap(portName(machine.id));
    } catch (error) {
      throw PolydevError.from(error, failure);
    }
  });
  try {
    await run(['ip', 'netns', 'add', name], { netns: router, failure, signal });
    await connectTap(instance, machine, signal);
    return { namespace: namespacePath(name), tap };
  } catch (error) {
    closeSync(tap);
    throw error;
  }
}

/**
 * The same for a hypervisor that opens its TAP interface by name, as the user `owner`: it is in the namespace until it was
 * opened, and goes to the router then (joinMachineTap), which an open one survives. The namespace is empty from then on.
 */
export async function openNamedTap(
  instance: string,
  id: MachineId,
  owner: number,
  signal: AbortSignal,
): Promise<{ namespace: string; tap: string }> {
  const name = machineNamespace(instance, id);
  const tap = portName(id);
  const netns = namespacePath(routerNamespace(instance));
  await run(['ip', 'netns', 'add', name], { netns, failure, signal });
  await run(['ip', 'tuntap', 'add', 'dev', tap, 'mode', 'tap', 'user', String(owner), 'vnet_hdr'], {
    netns: namespacePath(name),
    failure,
    signal,
  });
  await checkHeader(namespacePath(name), tap, signal);
  return { namespace: namespacePath(name), tap };
}

const Taps = z.array(
  z.object({ linkinfo: z.object({ info_data: z.object({ vnet_hdr: z.boolean().optional() }).optional() }) }),
);

/** Firecracker says nothing of a TAP interface without the header: its guest would get frames that it cannot read. */
async function checkHeader(netns: string, tap: string, signal: AbortSignal): Promise<void> {
  const said = await run(['ip', '-j', '-d', 'link', 'show', 'dev', tap], { netns, failure, signal });
  const [found] = Taps.parse(JSON.parse(said));
  if (found?.linkinfo.info_data?.vnet_hdr === true) return;
  throw new PolydevError(failure, `TAP interface ${tap}: ${NO_HEADER}`);
}

/** Moves the opened TAP interface of openNamedTap to the router and opens its port. */
export async function joinMachineTap(instance: string, machine: TapPort, signal: AbortSignal): Promise<void> {
  await run(['ip', 'link', 'set', portName(machine.id), 'netns', routerNamespace(instance)], {
    netns: namespacePath(machineNamespace(instance, machine.id)),
    failure,
    signal,
  });
  await connectTap(instance, machine, signal);
}

/**
 * Closes the port and removes link and namespace. Idempotent; fine without a router. Throws `network_setup_failed` when
 * the namespace is still there afterwards.
 */
export async function closeMachinePort(
  instance: string,
  id: MachineId,
  address: string | undefined,
): Promise<void> {
  const name = machineNamespace(instance, id);
  const router = namespacePath(routerNamespace(instance));
  const netns = existsSync(router) ? router : undefined;
  const port = portName(id);
  if (address === undefined && !existsSync(namespacePath(name))) return;
  // The neighbour last: ip ends its whole batch, -force or not, when there is none.
  const lines = [`link del ${port}`, `netns del ${name}`];
  if (address !== undefined) lines.push(`neigh del ${address} dev br0`);
  // Any of it may be gone already: what counts is what is there in the end.
  const results = await Promise.allSettled([
    ...(netns === undefined || address === undefined
      ? []
      : [run(['nft', '-f', '-'], { netns, input: closePort({ name: port, address }) })]),
    run(['ip', '-force', '-batch', '-'], { netns, input: [...lines, ''].join('\n') }),
  ]);
  if (!existsSync(namespacePath(name))) return;
  const failed = results
    .filter((result) => result.status === 'rejected')
    .map(({ reason }) => reason as unknown);
  throw new PolydevError(failure, `network namespace ${name} does not go away`, {
    cause: new AggregateError(failed),
    lines: failed.flatMap((reason) => (reason instanceof PolydevError ? reason.lines : [String(reason)])),
  });
}
