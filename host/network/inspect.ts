/** What is so of one machine's network, by asking the kernel and, from inside its namespace, its resolver. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { NetworkFacts } from '../evidence/facts.ts';
import { run } from '../system/command.ts';
import { namespacePath } from './addresses.ts';
import { Seen } from './check.ts';

const CHECK_DEADLINE_MS = 5000;

const Links = z.array(
  z.object({
    ifname: z.string(),
    flags: z.array(z.string()).default([]),
    master: z.string().optional(),
    linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
    addr_info: z.array(z.object({ local: z.string().optional() })).default([]),
  }),
);

export interface NetworkPlace {
  /** Name of the machine's namespace. */
  namespace: string;
  /** Path of the router's namespace, and the machine's link in it. */
  router: string;
  port: string;
  /** Every namespace of this instance. */
  namespaces: readonly string[];
  address: string | undefined;
  leases: NetworkFacts['leases'];
  resolver: string;
  /** The test identity provider, for a machine of the test realm. */
  provider: string | undefined;
  nodePath: string;
}

const linksIn = async (netns: string): Promise<z.infer<typeof Links>> =>
  Links.parse(JSON.parse(await run(['ip', '-j', '-d', 'addr', 'show'], { netns })));
const linksOf = (namespace: string): Promise<z.infer<typeof Links>> => linksIn(namespacePath(namespace));

/** Every address of a namespace. */
export async function addressesIn(namespace: string): Promise<string[]> {
  const links = await linksOf(namespace);
  return links.flatMap(({ addr_info }) => addr_info.flatMap(({ local }) => local ?? []));
}

/** What the resolver and the provider answer to the machine, up to 2 s. */
export async function askFromInside(place: NetworkPlace): Promise<Seen> {
  const argv = [
    place.nodePath,
    '--disable-warning=ExperimentalWarning',
    join(import.meta.dirname, 'check.ts'),
  ];
  const netns = namespacePath(place.namespace);
  const said = await run([...argv, place.resolver, place.provider ?? '-'], {
    netns,
    timeoutMs: CHECK_DEADLINE_MS,
  });
  return Seen.parse(JSON.parse(said));
}

/** `active`: also asks the resolver and the provider (up to 2 s); else only what costs nothing is said. */
export async function inspectNetwork(place: NetworkPlace, active: boolean): Promise<NetworkFacts> {
  const { namespace, address, leases } = place;
  const there = existsSync(namespacePath(namespace));
  const facts: NetworkFacts = {
    address: address ?? null,
    leases,
    namespace: there,
    device: null,
    bridge: null,
    addressOwners: [],
    resolver: null,
    provider: null,
    listening: null,
  };
  if (!there) return facts;
  const link = (await linksIn(place.router).catch(() => [])).find(({ ifname }) => ifname === place.port);
  facts.bridge = link?.master ?? null;
  // A virtual machine's own interface is inside it; what the host has of it is the TAP.
  const tap = link?.linkinfo?.info_kind === 'tun';
  const device = tap ? link : (await linksOf(namespace)).find(({ ifname }) => ifname === 'eth0');
  if (device !== undefined) facts.device = { name: device.ifname, up: device.flags.includes('UP') };
  if (!active) return facts;
  for (const name of place.namespaces) {
    const held = await addressesIn(name).catch((): string[] => []);
    if (address !== undefined && held.includes(address)) facts.addressOwners.push(name);
  }
  // Nothing of the host can be inside a virtual machine's network, and its namespace is empty.
  if (tap) return facts;
  const seen = await askFromInside(place);
  facts.listening = seen.listening;
  // Without a device nothing can answer: that the resolver is silent says nothing about the resolver then.
  if (facts.device === null) return facts;
  facts.resolver = { address: place.resolver, ...seen.resolver };
  if (place.provider !== undefined && seen.provider !== null) {
    facts.provider = { address: place.provider, ...seen.provider };
  }
  return facts;
}
