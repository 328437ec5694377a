/** The agent's code failed; under this driver nothing starts it again, so the machine ends. */
import { exitLine, linesOf, type Rule } from '../rule.ts';

/** What Node and the agent print when the agent's own code fails. */
const FAILURE =
  /^(agent: |\s*at |\w*Error\b|Uncaught|file:\/\/\/opt\/polydev|Node\.js v)|Error \[ERR_|Error:/;

export const agentCrashed: Rule = {
  name: 'agent_crashed',
  prove(found) {
    const { exit } = found;
    if (exit === null || exit.code === null || exit.code === 0 || exit.oomKilled) return undefined;
    const lines = linesOf(found, 'console.log', FAILURE, 10);
    return lines.length === 0 ? undefined : [...lines, ...exitLine(found)];
  },
};
