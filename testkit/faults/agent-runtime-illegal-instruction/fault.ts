import type { Fault } from '../fault.ts';

export const agentRuntimeIllegalInstruction: Fault = {
  name: 'agent-runtime-illegal-instruction',
  expect: 'agent_runtime_killed',
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/bin/sh\nkill -ILL $$\n'),
};
