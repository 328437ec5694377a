/** The subnet is used up. */
import { checked, linesOf, type Rule } from '../rule.ts';

export const addressesExhausted: Rule = {
  name: 'addresses_exhausted',
  prove(found) {
    if (found.error?.code !== 'addresses_exhausted') return undefined;
    const leases = found.facts?.network?.leases;
    return [
      ...linesOf(found, 'error', /address/),
      ...(leases === undefined ? [] : [checked(`${leases.held} of ${leases.size} addresses are taken`)]),
    ];
  },
};
