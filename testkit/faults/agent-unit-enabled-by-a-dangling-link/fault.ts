import type { Fault } from '../fault.ts';

export const agentUnitDanglingLink: Fault = {
  name: 'agent-unit-enabled-by-a-dangling-link',
  driver: 'qemu',
  expect: 'agent_unit_dangling',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => disk.remove('/etc/systemd/system/polydev-agent.service'),
};
