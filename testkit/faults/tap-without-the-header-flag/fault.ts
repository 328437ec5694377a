import { chmodSync, copyFileSync, existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';
import { vmHost } from '../vm.ts';

const IP = ['/usr/sbin/ip', '/sbin/ip', '/usr/bin/ip', '/bin/ip'];

export const tapWithoutTheHeaderFlag: Fault = {
  name: 'tap-without-the-header-flag',
  // Neither Firecracker nor KVM is needed: its driver looks at the link before it starts anything.
  driver: 'qemu',
  host: async (config) => ({ ...(await vmHost(config)), driver: 'firecracker' }),
  expect: 'tap_without_header',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  // As an ip program that is too old to know the flag and makes the interface without.
  before: async ({ config, id, defer }) => {
    const there = IP.find((file) => existsSync(file));
    if (there === undefined) throw new Error('there is no ip program');
    const ip = realpathSync(there);
    const folder = path.join(config.runDir, `ip-${id}`);
    mkdirSync(folder, { mode: 0o755 });
    const real = path.join(folder, 'ip');
    copyFileSync(ip, real);
    const script = path.join(folder, 'changed');
    const change = 'for word in "$@"; do\n  shift\n  [ "$word" = vnet_hdr ] || set -- "$@" "$word"\ndone';
    writeFileSync(script, `#!/bin/sh\n${change}\nexec ${real} "$@"\n`);
    for (const file of [real, script]) chmodSync(file, 0o755);
    await run(['mount', '--bind', script, ip]);
    defer(async () => {
      await run(['umount', '-l', ip]);
      rmSync(folder, { recursive: true });
    });
  },
};
