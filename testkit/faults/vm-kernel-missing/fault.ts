import { rmSync } from 'node:fs';
import type { Fault } from '../fault.ts';
import { replaceFor, vmKernels } from '../vm.ts';

export const vmKernelMissing: Fault = {
  name: 'vm-kernel-missing',
  driver: 'qemu',
  expect: 'vm_kernel_missing',
  spec: { kind: 'cli', realm: 'test' },
  before: async (place) => {
    const { started, packed } = await vmKernels(place.config);
    for (const kernel of [started, packed]) replaceFor(place, kernel, () => rmSync(kernel));
  },
};
