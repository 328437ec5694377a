import { writeFileSync } from 'node:fs';
import type { Fault } from '../fault.ts';
import { replaceFor, vmKernels } from '../vm.ts';

export const vmKernelOfAnotherArchitecture: Fault = {
  name: 'vm-kernel-of-another-architecture',
  driver: 'qemu',
  expect: 'vm_kernel_unusable',
  spec: { kind: 'cli', realm: 'test' },
  before: async (place) => {
    const { started } = await vmKernels(place.config);
    // What an arm64 kernel begins with: a jump, and "ARMd" at 56.
    const header = Buffer.alloc(4096);
    header.writeUInt32LE(0x14000000, 4);
    header.write('ARMd', 56);
    replaceFor(place, started, () => writeFileSync(started, header));
  },
};
