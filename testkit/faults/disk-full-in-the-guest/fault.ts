import type { Fault } from '../fault.ts';

export const diskFullInTheGuest: Fault = {
  name: 'disk-full-in-the-guest',
  expect: 'guest_disk_full',
  ownMounts: true,
  before: async ({ disk, defer }) => defer(disk.limit(64)),
};
