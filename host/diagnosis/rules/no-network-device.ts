/** Looked up in the kernel. */
import { checked, type Rule } from '../rule.ts';

export const noNetworkDevice: Rule = {
  name: 'no_network_device',
  prove(found) {
    const network = found.facts?.network;
    if (network === undefined || network === null || found.facts?.guest == null) return undefined;
    // The link of a virtual machine goes with its hypervisor, whatever ended that.
    if (found.facts?.guest?.hypervisor?.kernelArguments === null) return undefined;
    if (!network.namespace) return [checked("the machine's network namespace is gone")];
    if (network.device === null) return [checked("eth0 is not in the machine's network namespace")];
    return network.device.up ? undefined : [checked('eth0 of the machine is down')];
  },
};
