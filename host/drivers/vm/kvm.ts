/** Whether this process may use hardware virtualization at all; whether it works, only a guest can tell. */
import { closeSync, constants, openSync, statSync } from 'node:fs';
import { PolydevError } from '../../../protocol/errors.ts';

/** Throws an Error that says which of absent and forbidden it is. */
export function openKvm(path = '/dev/kvm'): void {
  try {
    closeSync(openSync(path, constants.O_RDWR));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO') {
      throw new Error(`absent (${path}: ${code}): this computer, or what it runs in, does not offer it`);
    }
    throw new Error(`forbidden (${path}: ${code}): this service may not open it`);
  }
}

/** openKvm() for the start of a machine. Throws `driver_unusable`. */
export function requireKvm(): void {
  try {
    openKvm();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new PolydevError('driver_unusable', `KVM: ${why}`, { cause: error });
  }
}

/**
 * The group whose members may use it (Debian: kvm), for a hypervisor that runs as nobody special and opens it itself; undefined
 * when there is none but root's.
 */
export function kvmGroup(path = '/dev/kvm'): number | undefined {
  const device = statSync(path, { throwIfNoEntry: false });
  return device === undefined || device.gid === 0 || (device.mode & 0o060) !== 0o060 ? undefined : device.gid;
}

/**
 * Which of the three a hypervisor's own words are about: it opens the device as nobody special, where this service is root.
 * Undefined: none. Words of QEMU 7.2 and Firecracker 1.16.
 */
export function kvmRefusal(words: string): 'absent' | 'forbidden' | 'unusable' | undefined {
  const opened = /(?:Could not access KVM kernel module|failed to initialize kvm): (.*)/.exec(words)?.[1];
  if (opened !== undefined && /No such (file|device)/.test(opened)) return 'absent';
  if (opened !== undefined && /Permission denied|not permitted/.test(opened)) return 'forbidden';
  return /failed to initialize kvm|kvm version too old|failed to set MSR|KVM internal error/.test(words)
    ? 'unusable'
    : undefined;
}

/** What a trial says it was doing when the guest did not come as far as its first program. */
export const KVM_UNUSABLE = 'KVM: present but unusable, its smallest guest does not run';
