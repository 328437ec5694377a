import type { Fault } from '../fault.ts';

export const agentWrongVersion: Fault = {
  name: 'agent-wrong-version',
  expect: 'agent_version_mismatch',
  before: async ({ disk }) =>
    disk.write('/opt/polydev/agent/version.json', '{"agent": "0.0.1+other"}', 0o644),
};
