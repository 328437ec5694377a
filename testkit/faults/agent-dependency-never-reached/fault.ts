import type { Fault } from '../fault.ts';

export const agentDependencyNeverReached: Fault = {
  name: 'agent-dependency-never-reached',
  driver: 'qemu',
  expect: 'agent_dependency_stuck',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ disk }) => {
    disk.write(
      '/etc/systemd/system/stray.service',
      '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n',
      0o644,
    );
    const needs = '[Unit]\nRequires=stray.service\nAfter=stray.service\n';
    disk.write('/etc/systemd/system/polydev-agent.service.d/stray.conf', needs, 0o644);
  },
};
