/** The hypervisor looked at the kernel and would not start it. */
import { linesIn, proof, type Rule } from '../rule.ts';

const REFUSED =
  /invalid kernel header|linux kernel too old|could not load (kernel|PVH)|not a valid (kernel|x86)|error loading (kernel|uncompressed)/i;

export const vmKernelUnusable: Rule = {
  name: 'vm_kernel_unusable',
  prove: (found) => proof(...linesIn(found, ['error', 'hypervisor.log'], REFUSED)),
};
