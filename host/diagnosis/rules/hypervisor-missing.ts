/** QEMU is away or may not be executed. */
import { linesIn, proof, type Rule } from '../rule.ts';

export const hypervisorMissing: Rule = {
  name: 'hypervisor_missing',
  prove: (found) =>
    proof(
      ...linesIn(
        found,
        ['error', 'hypervisor.log'],
        /failed to execute qemu-system|qemu-system\S*: (No such file|not found)/,
      ),
    ),
};
