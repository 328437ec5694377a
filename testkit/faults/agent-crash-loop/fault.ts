import type { Fault } from '../fault.ts';

export const agentCrashLoop: Fault = {
  name: 'agent-crash-loop',
  expect: 'agent_crashed',
  // The driver starts nothing again: the first crash ends the machine.
  before: async ({ disk }) => disk.write('/opt/polydev/agent/main.mjs', 'this is not JavaScript\n', 0o644),
};
