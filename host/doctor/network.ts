/** What of this host's own network is in the way of machines: routes, forwarding, packet filters, resolvers. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { chooseSubnet, hostTable, SUBNETS } from '../network/addresses.ts';
import { hostResolvers } from '../network/dns.ts';
import { hostRoutes } from '../network/uplink.ts';
import { PLAIN_ENVIRONMENT, run } from '../system/command.ts';
import { Leases } from '../system/leases.ts';
import { type Check, fail, ok, unknown, warn } from './check.ts';
import type { Examination } from './host.ts';

/** Few free addresses, as a part of all. */
const FEW = 0.1;

/** Which subnet machines get, and how much of it is free. */
export async function addresses(host: Examination): Promise<Check> {
  // This instance's own routes would count as a collision.
  const routes = host.uplink === 'none' || host.running ? [] : await hostRoutes(undefined);
  const { plan, notice } = chooseSubnet(host.subnet ?? SUBNETS[0], routes);
  const size = plan.lastMachine - plan.firstMachine + 1;
  const used = (await new Leases(join(host.runDir, 'addresses')).list()).length;
  const evidence = `${used} of ${size} addresses of ${plan.cidr} are taken`;
  const remedy = 'remove machines (./polydev machines rm), or set a larger "subnet"';
  if (used >= size) return fail('addresses', evidence, remedy);
  if (size - used < size * FEW) return warn('addresses', evidence, remedy);
  return ok('addresses', notice === undefined ? evidence : `${evidence}; ${notice}`);
}

/** The kernel's switch, which the host service turns on by itself where it can. */
export function forwarding({ uplink }: Examination): Check {
  const on = readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim() === '1';
  if (on) return ok('forwarding', 'ip_forward is on');
  return ok(
    'forwarding',
    uplink === 'none'
      ? 'ip_forward is off, and with --uplink none nothing is forwarded'
      : 'ip_forward is off; the host service turns it on',
  );
}

const Chains = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
});

const ACCEPT = (program: string): string =>
  `${program} -I FORWARD -i pdu+ -j ACCEPT; ${program} -I FORWARD -o pdu+ -m state --state RELATED,ESTABLISHED -j ACCEPT`;

/** Chains of somebody else's that drop what is forwarded by default, as Docker's do: nftables, and the older iptables. */
export async function firewalls(host: Examination, signal: AbortSignal): Promise<Check[]> {
  if (host.uplink === 'none')
    return [ok('firewall', 'not looked at: with --uplink none nothing is forwarded')];
  const listed = await run(['nft', '-j', 'list', 'chains'], { signal });
  const drops = Chains.parse(JSON.parse(listed))
    .nftables.flatMap(({ chain }) => chain ?? [])
    .filter(({ hook, policy }) => hook === 'forward' && policy === 'drop')
    .filter(({ family, table }) => ['ip', 'inet'].includes(family) && table !== hostTable(host.instance));
  const nft =
    drops[0] === undefined
      ? ok('firewall', 'no chain of nftables drops what is forwarded by default')
      : warn(
          'firewall',
          `chain ${drops[0].name} of table ${drops[0].family} ${drops[0].table} drops what is forwarded by default`,
          ACCEPT('iptables'),
        );
  return [nft, await legacyFirewall(signal)];
}

/** The older packet filter has tables of its own, which nft does not list. */
async function legacyFirewall(signal: AbortSignal): Promise<Check> {
  const name = 'legacy firewall';
  const tables = existsSync('/proc/net/ip_tables_names')
    ? readFileSync('/proc/net/ip_tables_names', 'utf8').trim().split('\n')
    : [];
  if (!tables.includes('filter')) return ok(name, 'the older iptables are not in use');
  const installed = PLAIN_ENVIRONMENT.PATH.split(':').some((folder) =>
    existsSync(join(folder, 'iptables-legacy')),
  );
  if (!installed) {
    const install = 'apt-get install --no-install-recommends iptables';
    return unknown(
      name,
      'the older iptables filter packets here, and the program that shows them is missing',
      install,
    );
  }
  const rules = await run(['iptables-legacy', '-w', '5', '-S', 'FORWARD'], { signal });
  return /^-P FORWARD DROP$/m.test(rules)
    ? warn(name, 'its chain FORWARD drops what is forwarded by default', ACCEPT('iptables-legacy'))
    : ok(name, 'its chain FORWARD does not drop by default');
}

/** Who resolves names of the internet for machines. */
export async function resolver({ uplink }: Examination): Promise<Check> {
  if (uplink === 'none') return ok('resolver', 'with --uplink none machines resolve nothing of the internet');
  const found = await hostResolvers();
  if (found.length > 0) return ok('resolver', `machines' names are asked from ${found.join(', ')}`);
  return warn(
    'resolver',
    'this host names no resolver that machines could use; names of the internet will not resolve',
    'set "resolvers" in the settings of the host service',
  );
}
