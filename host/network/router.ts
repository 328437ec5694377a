/** The router namespace of an instance: a bridge for the machines, the filters, the resolver, the uplink. */
import { existsSync, writeFileSync } from 'node:fs';
import { run } from '../system/command.ts';
import { endProcess, processesInNetworkNamespace } from '../system/processes.ts';
import { inNetworkNamespace } from '../system/syscalls.ts';
import { type AddressPlan, macOf, namespacePath, routerNamespace } from './addresses.ts';
import { routerRules } from './rules.ts';

const failure = 'network_setup_failed';

/** Builds the namespace with bridge and filters. removeRouter undoes it, by name. */
export async function buildRouter(
  instance: string,
  plan: AddressPlan,
  resolvers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const name = routerNamespace(instance);
  const netns = namespacePath(name);
  await run(['ip', 'netns', 'add', name], { failure, signal });
  inNetworkNamespace(netns, () => {
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1');
  });
  // Filters first: there is no moment in which something is connected and nothing is filtered.
  await run(['nft', '-f', '-'], { netns, input: routerRules(plan, resolvers), failure, signal });
  await run(['ip', '-batch', '-'], {
    netns,
    input: [
      'link set lo up',
      `link add br0 address ${macOf(plan.gateway)} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      'link set br0 addrgenmode none up',
      `addr add ${plan.gateway}/${plan.prefix} dev br0`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
}

/** Ends the processes inside (the resolver). */
export async function endRouterProcesses(instance: string): Promise<void> {
  const netns = namespacePath(routerNamespace(instance));
  await Promise.all(processesInNetworkNamespace(netns).map((found) => endProcess(found, 2000)));
}

/** Removes the namespace and everything in it. Idempotent. */
export async function removeRouter(instance: string): Promise<void> {
  await endRouterProcesses(instance);
  await removeNamespace(routerNamespace(instance));
}

/** Removes a named network namespace; none of that name is fine. */
export async function removeNamespace(name: string): Promise<void> {
  if (!existsSync(namespacePath(name))) return;
  await run(['ip', 'netns', 'del', name], { failure });
}
