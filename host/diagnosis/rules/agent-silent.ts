/** The machine runs and had an agent; now nobody answers on its channel. Only said when nothing that lies deeper is seen. */
import { checked, linesOf, proof, type Rule } from '../rule.ts';

export const agentSilent: Rule = {
  name: 'agent_silent',
  prove(found) {
    if (found.error?.code !== 'machine_unreachable' || found.exit !== null) return undefined;
    if (found.facts?.guest == null) return undefined;
    return proof(
      checked("the machine's processes run, and its agent does not answer on the channel"),
      ...linesOf(found, 'error', /./, 3),
    );
  },
};
