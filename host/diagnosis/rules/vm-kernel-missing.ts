/** The hypervisor was not even started: there is no kernel to give it. */
import { linesOf, proof, type Rule } from '../rule.ts';

export const vmKernelMissing: Rule = {
  name: 'vm_kernel_missing',
  prove: (found) =>
    proof(
      ...linesOf(
        found,
        'error',
        /ENOENT.*\/vm\/[^/]+\/(kernel|initrd)|the kernel of virtual machines was not made/,
      ),
    ),
};
