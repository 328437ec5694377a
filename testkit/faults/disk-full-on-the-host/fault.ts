import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const diskFullOnTheHost: Fault = {
  name: 'disk-full-on-the-host',
  expect: 'host_disk_full',
  ownMounts: true,
  host: async (config, defer) => {
    await run(['mount', '-t', 'tmpfs', '-o', 'size=4m,mode=711', 'small', config.dataDir]);
    defer(async () => void (await run(['umount', '-l', config.dataDir])));
    return {};
  },
  before: async ({ config }) => {
    // All but nothing: the next file does not fit.
    await run(['dd', 'if=/dev/zero', `of=${config.dataDir}/filler`, 'bs=4k']).catch(() => undefined);
  },
};
