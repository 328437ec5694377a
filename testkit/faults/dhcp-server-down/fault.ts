import type { Fault } from '../fault.ts';

export const dhcpServerDown: Fault = {
  name: 'dhcp-server-down',
  driver: 'qemu',
  expect: 'dhcp_silent',
  spec: { kind: 'cli', realm: 'test' },
  // Hides the file with the machine's address: the image's own is next, and asks a DHCP server.
  before: async ({ disk }) => disk.link('/etc/systemd/network/10-eth0.network', '/dev/null'),
};
