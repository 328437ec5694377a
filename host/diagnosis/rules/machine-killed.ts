/** SIGKILL that was neither ours nor that of the limit. */
import { exitLine, type Rule } from '../rule.ts';

export const machineKilled: Rule = {
  name: 'machine_killed',
  prove(found) {
    if (found.exit?.signal !== 'SIGKILL' || found.exit.oomKilled) return undefined;
    return exitLine(found);
  },
};
