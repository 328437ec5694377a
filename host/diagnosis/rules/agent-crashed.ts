/** The agent's code failed. Under the namespace driver nothing starts it again; in a virtual machine systemd does, in vain. */
import { exitLine, linesOf, type Rule } from '../rule.ts';

/** What Node and the agent print when the agent's own code fails. */
const FAILURE =
  /^(agent: |\s*at |\w*Error\b|Uncaught|file:\/\/\/opt\/polydev|Node\.js v)|Error \[ERR_|Error:/;

/** The same on the console of a virtual machine, behind the kernel's time and the unit's name. */
const INSIDE = /node\[\d+\]: (agent: |\w*Error\b|\s+at )/;

export const agentCrashed: Rule = {
  name: 'agent_crashed',
  prove(found) {
    const { exit } = found;
    const given = linesOf(found, 'console.log', /polydev-witness: NRestarts=/);
    const told = linesOf(found, 'console.log', /polydev-agent.*code=exited, status=(?!203\/)\d+/);
    if (given.length > 0 && told.length > 0) {
      return [...linesOf(found, 'console.log', INSIDE, 10), ...told, ...given];
    }
    if (exit === null || exit.code === null || exit.code === 0 || exit.oomKilled) return undefined;
    const lines = linesOf(found, 'console.log', FAILURE, 10);
    return lines.length === 0 ? undefined : [...lines, ...exitLine(found)];
  },
};
