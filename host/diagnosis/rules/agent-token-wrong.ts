/** The agent knows the hash of another token. */
import { linesOf, type Rule } from '../rule.ts';

export const agentTokenWrong: Rule = {
  name: 'agent_token_wrong',
  prove(found) {
    if (found.error?.code !== 'agent_unauthorized') return undefined;
    return linesOf(found, 'error', /./);
  },
};
