/** What faults of hardware virtualization need: another /dev, seen by this process's mounts alone, and the doctor's word. */
import { lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { HostConfig } from '../../host/config.ts';
import { kvm } from '../../host/doctor/virtualization.ts';
import { run } from '../../host/system/command.ts';
import type { Fault, Place } from './fault.ts';
import { vmHost } from './vm.ts';

/** The device in kvm's place: nothing, or the one that swallows everything, which opens and is no hypervisor's. */
export type Device = 'none' | { mode: '600' | '666' };

/** All of the host's devices where they are, but for kvm. */
async function otherDevices(folder: string, device: Device, defer: Place['defer']): Promise<void> {
  mkdirSync(folder, { recursive: true });
  await run(['mount', '-t', 'tmpfs', '-o', 'mode=755,nosuid', 'dev', folder]);
  for (const name of readdirSync('/dev')) {
    const [from, to] = [path.join('/dev', name), path.join(folder, name)];
    const found = lstatSync(from);
    if (name === 'kvm') continue;
    if (found.isSymbolicLink()) symlinkSync(readlinkSync(from), to);
    else if (found.isDirectory()) {
      mkdirSync(to);
      await run(['mount', '--rbind', from, to]);
    } else {
      writeFileSync(to, '');
      await run(['mount', '--bind', from, to]);
    }
  }
  if (device !== 'none') {
    const node = path.join(folder, 'kvm');
    await run(['mknod', '-m', device.mode, node, 'c', '1', '3']);
  }
  await run(['mount', '--move', folder, '/dev']);
  defer(async () => {
    await run(['umount', '-l', '/dev']);
    rmSync(folder, { recursive: true });
  });
}

/** A machine is asked for under QEMU with hardware virtualization and nothing else; `says`: what the doctor calls it. */
export const kvmFault = (about: Pick<Fault, 'name' | 'expect'>, device: Device, says: string): Fault => ({
  ...about,
  driver: 'qemu',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  host: async (config, defer): Promise<Partial<HostConfig>> => {
    await otherDevices(path.join(config.dataDir, 'dev'), device, defer);
    return { ...(await vmHost(config)), driver: 'qemu-kvm' };
  },
  before: async ({ config }) => {
    const found = await kvm({ ...config, running: true }, AbortSignal.timeout(60_000));
    if (found.state !== 'fail' || !found.evidence.startsWith(says) || found.remedy === null) {
      throw new Error(`the doctor says ${JSON.stringify(found)}`);
    }
  },
});
