/** The out-of-memory killer of the machine's own limit. */
import { checked, exitLine, linesOf, type Rule } from '../rule.ts';

export const memoryTooSmall: Rule = {
  name: 'memory_too_small',
  prove(found) {
    const guest = found.facts?.guest;
    // The limit of a virtual machine's hypervisor is not the guest's.
    if (guest?.hypervisor !== undefined) return undefined;
    const kills = guest?.oomKills ?? 0;
    if (kills === 0 && found.exit?.oomKilled !== true) return undefined;
    const memory = guest?.memoryMiB;
    return [
      checked(
        kills > 0
          ? `the kernel's out-of-memory killer struck ${kills} times inside the machine's limit`
          : "the kernel's out-of-memory killer struck inside the machine's limit",
      ),
      ...(memory === undefined
        ? []
        : [checked(`limit ${memory.limit} MiB, at most ${memory.peak ?? '?'} MiB used`)]),
      ...exitLine(found),
      ...linesOf(found, 'agent.log', /SIGKILL|exit_code=9|out of memory/i),
    ];
  },
};
