/** The agent's own word against the manifest of the image. */
import { checked, type Rule } from '../rule.ts';

export const agentVersionMismatch: Rule = {
  name: 'agent_version_mismatch',
  prove(found) {
    const verified = found.facts?.image?.agentVersion;
    if (found.agentVersion === null || verified === undefined || verified === null) return undefined;
    if (found.agentVersion === verified) return undefined;
    return [checked(`the agent says version ${found.agentVersion}; the image was verified with ${verified}`)];
  },
};
