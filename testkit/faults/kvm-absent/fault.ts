import { kvmFault } from '../kvm.ts';

export const kvmAbsent = kvmFault({ name: 'kvm-absent', expect: 'kvm_absent' }, 'none', 'absent');
