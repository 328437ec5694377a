import type { Fault } from '../fault.ts';

export const agentWrongToken: Fault = {
  name: 'agent-wrong-token',
  expect: 'agent_token_wrong',
  spec: { agentTokenHash: '0'.repeat(64) },
};
