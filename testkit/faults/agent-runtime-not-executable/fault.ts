import type { Fault } from '../fault.ts';

export const agentRuntimeNotExecutable: Fault = {
  name: 'agent-runtime-not-executable',
  expect: 'agent_runtime_unusable',
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/bin/sh\nexit 0\n', 0o644),
};
