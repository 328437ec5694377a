import { rmSync } from 'node:fs';
import type { Fault } from '../fault.ts';
import { replaceFor, vmParts } from '../vm.ts';

export const vmKernelMissing: Fault = {
  name: 'vm-kernel-missing',
  driver: 'qemu',
  expect: 'vm_kernel_missing',
  spec: { kind: 'cli', realm: 'test' },
  before: async (place) => {
    const { kernel } = await vmParts(place.config);
    replaceFor(place, kernel, () => rmSync(kernel));
  },
};
