/** The host's out-of-memory killer took the hypervisor, not a program in the guest. */
import { checked, exitLine, type Rule } from '../rule.ts';

export const hypervisorKilled: Rule = {
  name: 'host_out_of_memory',
  prove(found) {
    const guest = found.facts?.guest;
    if (guest?.hypervisor === undefined || found.exit?.signal !== 'SIGKILL') return undefined;
    if (!found.exit.oomKilled && guest.oomKills === 0) return undefined;
    return [checked("the host's out-of-memory killer ended the hypervisor"), ...exitLine(found)];
  },
};
