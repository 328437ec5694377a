import type { Fault } from '../fault.ts';

export const agentUnitAbsent: Fault = {
  name: 'agent-unit-absent',
  driver: 'qemu',
  expect: 'agent_unit_absent',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => {
    disk.remove('/etc/systemd/system/polydev-agent.service');
    disk.remove('/etc/systemd/system/multi-user.target.wants/polydev-agent.service');
  },
};
