/** The program is away or may not be executed. */
import { linesIn, proof, type Rule, reached } from '../rule.ts';

export const xvncMissing: Rule = {
  name: 'xvnc_missing',
  prove(found) {
    if (reached(found, 'desktop')) return undefined;
    return proof(...linesIn(found, ['error', 'agent.log', 'console.log'], /spawn Xvnc (ENOENT|EACCES)/));
  },
};
