import type { Fault } from '../fault.ts';

export const staleBrowserProfileLock: Fault = {
  name: 'stale-browser-profile-lock',
  expect: 'none',
  before: async ({ disk }) => {
    disk.link('/home/person/.config/chromium/SingletonLock', 'another-host-4711', 1000);
    disk.link('/home/person/.config/chromium/SingletonSocket', '/tmp/no/such/socket', 1000);
  },
};
