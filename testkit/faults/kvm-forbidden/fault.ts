import { kvmFault } from '../kvm.ts';

// Root may open it, the user of a hypervisor may not.
export const kvmForbidden = kvmFault(
  { name: 'kvm-forbidden', expect: 'kvm_forbidden' },
  { mode: '600' },
  'forbidden',
);
