/** Hardware virtualization and who uses it. A device node proves nothing: the smallest guest is really started. */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { probe } from '../drivers/qemu/probe.ts';
import { findVmParts } from '../images/vm.ts';
import { cgroupOfInstance, removeCgroup } from '../system/cgroups.ts';
import { PLAIN_ENVIRONMENT } from '../system/command.ts';
import { removeTree } from '../system/files.ts';
import { Leases } from '../system/leases.ts';
import { type Check, fail, ok, unknown, warn } from './check.ts';
import type { Examination } from './host.ts';
import { scratchInstance } from './trials.ts';

const QEMU = 'qemu-system-x86_64';
const INSTALL = 'apt-get install --no-install-recommends qemu-system-x86';
const DEVICE = '/dev/kvm';

function findQemu(): string | undefined {
  return PLAIN_ENVIRONMENT.PATH.split(':')
    .map((folder) => join(folder, QEMU))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** The program that the qemu driver starts. */
export function hypervisor({ driver }: Examination): Check {
  const path = findQemu();
  if (path !== undefined) return ok('hypervisor', path);
  return driver === 'qemu'
    ? fail('hypervisor', `${QEMU} is not installed`, INSTALL)
    : ok('hypervisor', `${QEMU} is not installed; only virtual machines need it`, INSTALL);
}

/**
 * Absent, forbidden, present but of no use, or proven: only a guest that comes up under it within its deadline proves it.
 * No machine of this version needs it, so nothing fails; what is in the way is said.
 */
export async function kvm(host: Examination, signal: AbortSignal): Promise<Check> {
  if (!existsSync(DEVICE)) {
    const flags = /\b(vmx|svm)\b/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
    return flags === undefined
      ? ok('kvm', `absent: ${DEVICE} is not there and the processor offers no virtualization`)
      : ok('kvm', `absent: ${DEVICE} is not there; the processor has ${flags}`, loadModule(flags));
  }
  try {
    closeSync(openSync(DEVICE, constants.O_RDWR));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return warn(
      'kvm',
      `forbidden: ${DEVICE} does not open (${code})`,
      `chmod 0660 ${DEVICE}; chown root:kvm ${DEVICE}`,
    );
  }
  const opens = `${DEVICE} opens; whether a guest runs was not tried`;
  if (findQemu() === undefined) return unknown('kvm', `${opens}: ${QEMU} is not installed`, INSTALL);
  const { imageCacheDir: cacheDir, checkout } = host;
  const parts = await findVmParts({ cacheDir, checkout });
  if (parts === undefined) {
    return unknown(
      'kvm',
      `${opens}: the kernel of virtual machines was not made`,
      './polydev image build --vm',
    );
  }
  const report = await bootSmallestGuest(parts, signal);
  if (report.ok) return ok('kvm', `the smallest guest ran under it (${report.ms} ms)`);
  return warn(
    'kvm',
    `unusable: ${DEVICE} opens, and the smallest guest did not run: ${report.problems.join('; ')}`,
    'none here: machines run without it; in a virtual machine, enable nested virtualization at its host',
  );
}

const loadModule = (flags: string): string => `modprobe ${flags === 'vmx' ? 'kvm_intel' : 'kvm_amd'}`;

/** Under KVM, in places of its own that are gone afterwards. */
async function bootSmallestGuest(parts: { kernel: string; initrd: string }, signal: AbortSignal) {
  const instance = scratchInstance();
  const runFolder = `/run/polydev-doctor-${instance}`;
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTree(runFolder));
  undo.defer(() => removeCgroup(cgroupOfInstance(instance)));
  // What waits for the end of the guest does not keep a process alive by itself.
  const awake = setInterval(() => undefined, 1000);
  undo.defer(() => clearInterval(awake));
  await mkdir(runFolder, { recursive: true, mode: 0o711 });
  const idLeases = new Leases(join(runFolder, 'ids'));
  return await probe(
    { instance, runFolder, accelerator: 'kvm', slowdown: 1, idLeases, parts: async () => parts },
    signal,
  );
}
