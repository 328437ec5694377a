/** Looked up in the kernel. */
import { checked, type Rule } from '../rule.ts';

export const tapNotOnBridge: Rule = {
  name: 'tap_not_on_bridge',
  prove(found) {
    const network = found.facts?.network;
    if (network == null || found.facts?.guest?.hypervisor === undefined) return undefined;
    if (network.device === null || network.bridge !== null) return undefined;
    return [checked(`${network.device.name}, the machine's link, is a port of no bridge`)];
  },
};
