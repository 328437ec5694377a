import type { Fault } from '../fault.ts';

export const agentUnitNotEnabled: Fault = {
  name: 'agent-unit-not-enabled',
  driver: 'qemu',
  expect: 'agent_unit_not_enabled',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) =>
    disk.remove('/etc/systemd/system/multi-user.target.wants/polydev-agent.service'),
};
