/** The agent answers on its channel but not on TCP 8080. */
import { linesIn, proof, type Rule } from '../rule.ts';

export const agentPortTaken: Rule = {
  name: 'agent_port_taken',
  prove: (found) => proof(...linesIn(found, ['agent.log', 'console.log'], /agent: port \d+: .*EADDRINUSE/)),
};
