import type { Fault } from '../fault.ts';

export const vmAgentRuntimeIllegalInstruction: Fault = {
  name: 'vm-agent-runtime-illegal-instruction',
  driver: 'qemu',
  expect: 'agent_runtime_killed',
  spec: { kind: 'cli', realm: 'test' },
  // As a processor that lacks an instruction ends a program that uses it.
  before: async ({ disk }) => disk.write('/usr/local/bin/node', '#!/bin/sh\nkill -ILL $$\n'),
};
