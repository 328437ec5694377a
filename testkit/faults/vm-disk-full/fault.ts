import type { Fault } from '../fault.ts';
import { fullDisk } from '../vm.ts';

export const vmDiskFull: Fault = {
  name: 'vm-disk-full',
  driver: 'qemu',
  expect: 'guest_disk_full',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ config, id }) => fullDisk(config, id),
};
