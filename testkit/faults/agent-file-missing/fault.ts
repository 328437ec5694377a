import type { Fault } from '../fault.ts';

export const agentFileMissing: Fault = {
  name: 'agent-file-missing',
  expect: 'agent_missing',
  before: async ({ disk }) => disk.remove('/opt/polydev/agent/main.mjs'),
};
