/** Looked up in the kernel. */
import { checked, type Rule } from '../rule.ts';

export const duplicateAddress: Rule = {
  name: 'duplicate_address',
  prove(found) {
    const network = found.facts?.network;
    if (network == null || network.addressOwners.length < 2) return undefined;
    return network.addressOwners.map((name) => checked(`${network.address} is in the namespace ${name}`));
  },
};
