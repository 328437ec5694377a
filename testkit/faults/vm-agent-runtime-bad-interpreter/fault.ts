import type { Fault } from '../fault.ts';

export const vmAgentRuntimeBadInterpreter: Fault = {
  name: 'vm-agent-runtime-bad-interpreter',
  driver: 'qemu',
  expect: 'agent_runtime_unusable',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/no/such/interpreter\n'),
};
