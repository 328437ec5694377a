/** A guest that sleeps goes on only under the hypervisor, processor and kernel it was saved with. */
import { linesOf, proof, type Rule } from '../rule.ts';

export const snapshotForeign: Rule = {
  name: 'snapshot_foreign',
  prove: (found) =>
    proof(...linesOf(found, 'error', /the guest was saved with another (hypervisor|processor|kernel)/)),
};
