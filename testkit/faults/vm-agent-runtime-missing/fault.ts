import type { Fault } from '../fault.ts';

export const vmAgentRuntimeMissing: Fault = {
  name: 'vm-agent-runtime-missing',
  driver: 'qemu',
  expect: 'agent_runtime_unusable',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => disk.remove('/usr/local/bin/node'),
};
