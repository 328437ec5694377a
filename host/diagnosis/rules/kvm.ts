/** A hypervisor that needs hardware virtualization did not get it: what it said, or what the driver saw before it was started. */
import { linesIn, proof, type Rule } from '../rule.ts';

const OPENING = '(?:Could not access KVM kernel module|failed to initialize kvm): .*';
const ABSENT = new RegExp(`${OPENING}No such (?:file|device)|KVM: absent`);
const FORBIDDEN = new RegExp(`${OPENING}(?:Permission denied|not permitted)|KVM: forbidden`);
const UNUSABLE =
  /failed to initialize kvm|kvm version too old|failed to set MSR|KVM internal error|KVM: present but unusable/;

const rule = (name: Rule['name'], pattern: RegExp): Rule => ({
  name,
  prove: (found) => proof(...linesIn(found, ['error', 'hypervisor.log'], pattern)),
});

export const kvmAbsent = rule('kvm_absent', ABSENT);
export const kvmForbidden = rule('kvm_forbidden', FORBIDDEN);
export const kvmUnusable = rule('kvm_unusable', UNUSABLE);
