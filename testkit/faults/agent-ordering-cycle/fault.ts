import type { Fault } from '../fault.ts';

export const agentOrderingCycle: Fault = {
  name: 'agent-ordering-cycle',
  driver: 'qemu',
  expect: 'agent_ordering_cycle',
  spec: { kind: 'cli', realm: 'test' },
  // A unit that the boot requires, before and after the agent: systemd has to give up one of the two.
  before: async ({ disk }) => {
    disk.write(
      '/etc/systemd/system/stray.service',
      '[Unit]\nDefaultDependencies=no\nAfter=polydev-agent.service\nBefore=polydev-agent.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n',
      0o644,
    );
    disk.write(
      '/etc/systemd/system/multi-user.target.d/stray.conf',
      '[Unit]\nRequires=stray.service\n',
      0o644,
    );
  },
};
