/** Hardware virtualization and who uses it. A device node proves nothing: the smallest guest is really started. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { probe } from '../drivers/qemu/probe.ts';
import { openKvm } from '../drivers/vm/kvm.ts';
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
const PERMIT = `chown root:kvm ${DEVICE}; chmod 0660 ${DEVICE}   (inside a container: give it the device)`;

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
  return driver === 'qemu' || driver === 'qemu-kvm'
    ? fail('hypervisor', `${QEMU} is not installed`, INSTALL)
    : ok('hypervisor', `${QEMU} is not installed; only virtual machines need it`, INSTALL);
}

const OTHER_DRIVER = './polydev up --driver auto   (machines run without it)';

/**
 * Absent, forbidden, present but of no use, or proven: only a guest that comes up under it within its deadline proves it.
 * It fails where the driver that was asked for needs it; else what is in the way is said.
 */
export async function kvm(host: Examination, signal: AbortSignal): Promise<Check> {
  const needed = host.driver === 'firecracker' || host.driver === 'qemu-kvm';
  const trouble = needed ? fail : warn;
  try {
    openKvm();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    if (!why.startsWith('absent')) return trouble('kvm', why, PERMIT);
    const flags = /\b(vmx|svm)\b/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
    const offered = flags === undefined ? 'the processor offers no virtualization' : `it has ${flags}`;
    const remedy = flags === undefined ? OTHER_DRIVER : loadModule(flags);
    if (needed) return fail('kvm', `${why}; ${offered}`, remedy);
    return flags === undefined
      ? ok('kvm', `${why}; ${offered}`)
      : ok('kvm', `${why}; ${offered}`, loadModule(flags));
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
  const said = report.problems.join('; ');
  if (said.includes('KVM: forbidden')) {
    return trouble('kvm', `forbidden: the user of a hypervisor may not open ${DEVICE}: ${said}`, PERMIT);
  }
  return trouble(
    'kvm',
    `unusable: ${DEVICE} opens, and the smallest guest did not run: ${said}`,
    `${OTHER_DRIVER}; in a virtual machine, enable nested virtualization at its host`,
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
