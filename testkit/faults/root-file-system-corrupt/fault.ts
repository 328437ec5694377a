import type { Fault } from '../fault.ts';
import { newDisk } from '../vm.ts';

export const rootFileSystemCorrupt: Fault = {
  name: 'root-file-system-corrupt',
  driver: 'qemu',
  expect: 'root_file_system_corrupt',
  spec: { kind: 'cli', realm: 'test' },
  before: async ({ config, id }) => void newDisk(config, id, 64),
};
