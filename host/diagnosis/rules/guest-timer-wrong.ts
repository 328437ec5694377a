/** The kernel of an emulated guest could not measure its timer, however often it was started again. */
import { exitLine, linesOf, proof, type Rule } from '../rule.ts';

export const guestTimerWrong: Rule = {
  name: 'guest_timer_wrong',
  prove(found) {
    const said = linesOf(
      found,
      'hypervisor.log',
      /polydev: the guest's kernel measured its timer at .* given up/,
      1,
    );
    if (said.length === 0) return undefined;
    return proof(
      ...said,
      ...linesOf(found, 'console.log', /host bus clock speed|disabling apic timer/, 2),
      ...exitLine(found),
    );
  },
};
