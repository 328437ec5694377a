/** The address plan of one instance: IPv4 arithmetic, names, and which subnet collides with the host's routes. */
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';

/** "10.213.0.0" as a number. */
export function parseAddress(text: string): number {
  const parts = z.ipv4().parse(text).split('.').map(Number);
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

export const formatAddress = (value: number): string =>
  [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');

export interface Block {
  first: number;
  last: number;
  prefix: number;
}

/** "10.213.0.0/16" as a range; a bare address is a /32. */
export function parseBlock(text: string): Block {
  const [address = '', bits = '32'] = text.split('/');
  const prefix = z.coerce.number().int().min(0).max(32).parse(bits);
  const size = 2 ** (32 - prefix);
  const first = Math.floor(parseAddress(address) / size) * size;
  return { first, last: first + size - 1, prefix };
}

export const overlap = (a: Block, b: Block): boolean => a.first <= b.last && b.first <= a.last;

/** The default and what is tried when it collides: ranges of RFC 1918 that few networks use. */
export const SUBNETS = ['10.213.0.0/16', '10.87.0.0/16', '172.29.0.0/16', '192.168.212.0/22'] as const;

export interface AddressPlan {
  cidr: string;
  prefix: number;
  gateway: string;
  /** First and last address for machines, as numbers. */
  firstMachine: number;
  lastMachine: number;
  /** Ends of the link between router and host. */
  uplinkHost: string;
  uplinkRouter: string;
  /** Ends of the link between router and test identity provider. */
  idpRouter: string;
  idp: string;
}

/** Cuts a subnet: gateway first, machines, and the two links in its last eight addresses. */
export function planSubnet(cidr: string): AddressPlan {
  const { first, last, prefix } = parseBlock(cidr);
  if (prefix > 26 || prefix < 8) {
    throw new PolydevError('configuration_invalid', `subnet ${cidr}: the prefix must be from /8 to /26`);
  }
  const linkPair = (base: number): [string, string] => [formatAddress(base + 1), formatAddress(base + 2)];
  const [uplinkHost, uplinkRouter] = linkPair(last - 3);
  const [idpRouter, idp] = linkPair(last - 7);
  return {
    cidr,
    prefix,
    gateway: formatAddress(first + 1),
    firstMachine: first + 2,
    lastMachine: last - 8,
    uplinkHost,
    uplinkRouter,
    idpRouter,
    idp,
  };
}

/**
 * The subnet to use and, when the wished one collides with a route of the host, a sentence saying so.
 * `routes` are destinations as `ip -j route` prints them.
 */
export function chooseSubnet(
  wished: string,
  routes: readonly string[],
): { plan: AddressPlan; notice?: string } {
  const taken = routes.filter((route) => route !== 'default').map(parseBlock);
  const free = (cidr: string): boolean => !taken.some((block) => overlap(block, parseBlock(cidr)));
  if (free(wished)) return { plan: planSubnet(wished) };
  const other = SUBNETS.find((cidr) => cidr !== wished && free(cidr));
  if (other === undefined) {
    throw new PolydevError(
      'network_setup_failed',
      `the subnet ${wished} overlaps a route of this host, and so do all others: set "subnet" to a free range`,
    );
  }
  return {
    plan: planSubnet(other),
    notice: `the subnet ${wished} overlaps a route of this host; using ${other} instead`,
  };
}

/** A locally administered MAC that says which address it belongs to. */
export function macOf(address: string): string {
  const bytes = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  return `02:70:${bytes.join(':')}`;
}

/** Network namespaces live where iproute2 puts them, so that `ip netns` shows them. */
export const namespacePath = (name: string): string => `/run/netns/${name}`;
export const routerNamespace = (instance: string): string => `pd-${instance}-router`;
export const idpNamespace = (instance: string): string => `pd-${instance}-idp`;
export const machineNamespace = (instance: string, id: MachineId): string =>
  `pd-${instance}-${id.slice(2, 12)}`;
export const namespacePrefix = (instance: string): string => `pd-${instance}-`;
/** Interface names hold at most 15 characters. */
export const portName = (id: MachineId): string => `v${id.slice(2, 14)}`;
export const uplinkName = (instance: string): string => `pdu-${instance}`;
export const hostTable = (instance: string): string => `polydev_${instance}`;

/** What no machine may reach although it is not one of ours: private, shared, link-local and reserved ranges. */
export const PRIVATE_RANGES = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
] as const;
