/** Node found no agent. */
import { linesOf, proof, type Rule, reached } from '../rule.ts';

export const agentMissing: Rule = {
  name: 'agent_missing',
  prove(found) {
    if (reached(found, 'agent')) return undefined;
    return proof(...linesOf(found, 'console.log', /Cannot find module '?\/opt\/polydev\/agent\/main\.mjs/));
  },
};
