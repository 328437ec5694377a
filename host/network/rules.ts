/** The packet filters, as text for `nft -f -`. Nothing here runs anything. */
import { Realm } from '../../protocol/machine.ts';
import { type AddressPlan, hostTable, macOf, PRIVATE_RANGES, uplinkName } from './addresses.ts';

/**
 * The router's filters. `inet` decides between the worlds by two sets of addresses; `bridge` pins every port to one
 * MAC and one address, so that membership of a set cannot be forged, and never lets a frame cross between ports.
 */
export function routerRules(plan: AddressPlan, resolvers: readonly string[]): string {
  const resolverElements = resolvers.length > 0 ? `elements = { ${resolvers.join(', ')} }` : '';
  return `
table inet polydev {
  set internet_machines { type ipv4_addr; }
  set test_machines { type ipv4_addr; }
  set private { type ipv4_addr; flags interval; elements = { ${PRIVATE_RANGES.join(', ')} } }
  set resolvers { type ipv4_addr; ${resolverElements} }
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    iifname br0 ip saddr @internet_machines ip daddr ${plan.gateway} meta l4proto { tcp, udp } th dport 53 accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    # Realms come before connection tracking: an entry left by an earlier owner of an address opens nothing.
    iifname br0 oifname up0 ip saddr != @internet_machines drop
    iifname br0 oifname idp0 ip saddr != @test_machines drop
    iifname up0 oifname idp0 drop
    iifname idp0 oifname up0 drop
    ct state established,related accept
    iifname br0 oifname idp0 ip daddr ${plan.idp} tcp dport { 53, 443 } accept
    iifname br0 oifname idp0 ip daddr ${plan.idp} udp dport 53 accept
    iifname br0 oifname up0 ip daddr != @private accept
    # An answer at once instead of a time-out.
    iifname br0 reject with icmpx type admin-prohibited
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oif lo accept
    ct state established,related accept
    oifname up0 ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname up0 masquerade
  }
}
table bridge polydev {
  set ports { type ifname . ether_addr . ipv4_addr; }
  chain prerouting {
    type filter hook prerouting priority -300; policy drop;
    ether type arp iifname . ether saddr . arp saddr ip @ports iifname . arp saddr ether . arp saddr ip @ports accept
    ether type ip iifname . ether saddr . ip saddr @ports accept
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
  }
}
`;
}

export interface Port {
  name: string;
  address: string;
  realm: Realm;
}

const portElements = (
  action: 'add' | 'delete',
  { name, address }: Port,
  realms: readonly Realm[],
): string[] => [
  `${action} element bridge polydev ports { "${name}" . ${macOf(address)} . ${address} }`,
  ...realms.map((realm) => `${action} element inet polydev ${realm}_machines { ${address} }`),
];

/** Opens a machine's port, in its realm only. */
export const openPort = (port: Port): string => [...portElements('add', port, [port.realm]), ''].join('\n');

/** Closes a port, whatever of it was open: adding what exists changes nothing, so that deleting cannot fail. */
export const closePort = (port: Omit<Port, 'realm'>): string => {
  const all: Port = { ...port, realm: 'test' };
  const realms = Realm.options;
  return [...portElements('add', all, realms), ...portElements('delete', all, realms), ''].join('\n');
};

/** The one table in the host's own namespace: the way out for the router, and no way from it into the host. */
export function hostRules(instance: string, plan: AddressPlan, resolvers: readonly string[]): string {
  const table = hostTable(instance);
  const link = uplinkName(instance);
  const resolverRule =
    resolvers.length > 0
      ? `iifname ${link} ip daddr { ${resolvers.join(', ')} } meta l4proto { tcp, udp } th dport 53 accept`
      : '';
  return `
table inet ${table} {
  chain input {
    type filter hook input priority filter - 5; policy accept;
    iifname ${link} ct state established,related accept
    iifname ${link} drop
  }
  chain forward {
    type filter hook forward priority filter - 5; policy accept;
    iifname ${link} ip saddr != ${plan.uplinkRouter} drop
    iifname ${link} meta nfproto ipv6 drop
    ${resolverRule}
    iifname ${link} ip daddr { ${PRIVATE_RANGES.join(', ')} } drop
    oifname ${link} ct state established,related accept
    oifname ${link} drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != ${link} ip saddr ${plan.uplinkRouter} masquerade
  }
}
`;
}
