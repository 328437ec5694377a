import { kvmFault } from '../kvm.ts';

export const kvmPresentButUnusable = kvmFault(
  { name: 'kvm-present-but-unusable', expect: 'kvm_unusable' },
  { mode: '666' },
  'unusable',
);
