/** The guest's own kernel ran out of memory: its limit is the memory that the virtual machine has. */
import { checked, linesOf, type Rule } from '../rule.ts';

const OUT =
  /Out of memory: Killed|System is deadlocked on memory|Initramfs unpacking failed: write error|invoked oom-killer|Cannot allocate memory/;

export const guestOutOfMemory: Rule = {
  name: 'guest_out_of_memory',
  prove(found) {
    const refused = linesOf(found, 'error', /a virtual machine needs at least \d+ MiB of memory/);
    if (refused.length > 0) return refused;
    if (found.facts?.guest?.hypervisor === undefined) return undefined;
    const said = linesOf(found, 'console.log', OUT);
    if (said.length === 0) return undefined;
    return [...said, checked(`the machine has ${found.facts.guest.memoryMiB.limit} MiB of memory`)];
  },
};
