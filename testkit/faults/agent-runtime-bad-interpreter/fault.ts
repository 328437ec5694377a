import type { Fault } from '../fault.ts';

export const agentRuntimeBadInterpreter: Fault = {
  name: 'agent-runtime-bad-interpreter',
  expect: 'agent_runtime_unusable',
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/no/such/interpreter\n'),
};
