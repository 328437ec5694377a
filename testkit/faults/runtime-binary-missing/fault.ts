import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const runtimeBinaryMissing: Fault = {
  name: 'runtime-binary-missing',
  expect: 'runtime_missing',
  ownMounts: true,
  before: async ({ config, defer }) => {
    // The folder of runc without runc, seen by nobody outside of this process's mounts.
    const folder = '/usr/sbin';
    const scratch = path.join(config.dataDir, 'no-runc');
    await mkdir(path.join(scratch, 'upper'), { recursive: true });
    await mkdir(path.join(scratch, 'work'));
    await run(['mknod', path.join(scratch, 'upper', 'runc'), 'c', '0', '0']);
    const options = `lowerdir=${folder},upperdir=${scratch}/upper,workdir=${scratch}/work`;
    await run(['mount', '-t', 'overlay', '-o', options, 'no-runc', folder]);
    defer(async () => void (await run(['umount', '-l', folder])));
  },
};
