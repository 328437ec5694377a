import type { Fault } from '../fault.ts';

export const agentRuntimeMissing: Fault = {
  name: 'agent-runtime-missing',
  expect: 'agent_runtime_unusable',
  before: async ({ disk }) => disk.remove('/usr/local/bin/node'),
};
