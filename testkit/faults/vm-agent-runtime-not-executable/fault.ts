import type { Fault } from '../fault.ts';

export const vmAgentRuntimeNotExecutable: Fault = {
  name: 'vm-agent-runtime-not-executable',
  driver: 'qemu',
  expect: 'agent_runtime_unusable',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/bin/sh\nexit 0\n', 0o644),
};
