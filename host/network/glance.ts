/**
 * The cheap look at a machine's network, for machines that are watched: its own interface is looked at each time; what is
 * the same for all machines of the instance is looked up once and good for a while.
 */

import type { NetworkFacts } from '../evidence/facts.ts';
import { addressesIn, askFromInside, inspectNetwork, type NetworkPlace } from './inspect.ts';

/** How long it is good for, ms: two looks at one machine are further apart. */
const FRESH_MS = 12_000;

export class Glance {
  /** Namespaces by the addresses that they hold. */
  #owners: { at: number; found: Promise<ReadonlyMap<string, readonly string[]>> } | undefined;
  /** Resolvers that have answered, and when. That one is silent is asked anew by every machine: the way may be its own. */
  readonly #answered = new Map<string, number>();

  async look(place: NetworkPlace): Promise<NetworkFacts> {
    const facts = await inspectNetwork(place, false);
    if (!facts.namespace || facts.device === null || place.address === undefined) return facts;
    // Nobody of the host can ask from inside a virtual machine: its namespace is empty, and only its TAP is seen.
    if (facts.device.name === place.port) return facts;
    facts.addressOwners = [...((await this.#ownersOf(place)).get(place.address) ?? [])];
    if (performance.now() - (this.#answered.get(place.resolver) ?? Number.NEGATIVE_INFINITY) < FRESH_MS) {
      facts.resolver = { address: place.resolver, answers: true, said: 'answered a moment ago' };
      return facts;
    }
    const { resolver } = await askFromInside({ ...place, provider: undefined });
    if (resolver.answers) this.#answered.set(place.resolver, performance.now());
    facts.resolver = { address: place.resolver, ...resolver };
    return facts;
  }

  #ownersOf({ namespaces }: NetworkPlace): Promise<ReadonlyMap<string, readonly string[]>> {
    if (this.#owners !== undefined && performance.now() - this.#owners.at < FRESH_MS)
      return this.#owners.found;
    const found = (async () => {
      const owners = new Map<string, string[]>();
      for (const name of namespaces) {
        // One that goes meanwhile holds nothing.
        const addresses = await addressesIn(name).catch((): string[] => []);
        for (const address of new Set(addresses)) owners.set(address, [...(owners.get(address) ?? []), name]);
      }
      return owners;
    })();
    this.#owners = { at: performance.now(), found };
    return found;
  }
}
