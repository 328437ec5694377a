import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const hypervisorBinaryMissing: Fault = {
  name: 'hypervisor-binary-missing',
  driver: 'qemu',
  expect: 'hypervisor_missing',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: async ({ config, defer }) => {
    // The folder of QEMU without QEMU, seen by nobody outside of this process's mounts.
    const folder = '/usr/bin';
    const scratch = path.join(config.dataDir, 'no-qemu');
    await mkdir(path.join(scratch, 'upper'), { recursive: true });
    await mkdir(path.join(scratch, 'work'));
    await run(['mknod', path.join(scratch, 'upper', 'qemu-system-x86_64'), 'c', '0', '0']);
    const options = `lowerdir=${folder},upperdir=${scratch}/upper,workdir=${scratch}/work`;
    await run(['mount', '-t', 'overlay', '-o', options, 'no-qemu', folder]);
    defer(async () => void (await run(['umount', '-l', folder])));
  },
};
