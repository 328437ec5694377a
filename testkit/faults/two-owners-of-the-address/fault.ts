import { readFileSync } from 'node:fs';
import type { Fault } from '../fault.ts';
import { vmParts } from '../vm.ts';

/** A file of a cpio archive (newc): fields of eight hexadecimal digits, names and contents padded to four bytes. */
function fileIn(archive: Buffer, wanted: string): Buffer {
  const pad = (length: number): number => Math.ceil(length / 4) * 4;
  for (let at = 0; archive.toString('latin1', at, at + 6) === '070701'; ) {
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [size, nameSize] = [field(6), field(11)];
    const name = archive.toString('utf8', at + 110, at + 110 + nameSize - 1);
    const from = pad(at + 110 + nameSize);
    if (name === wanted) return archive.subarray(from, from + size);
    at = pad(from + size);
  }
  throw new Error(`there is no ${wanted} in the archive`);
}

export const twoOwnersOfTheAddress: Fault = {
  name: 'two-owners-of-the-address',
  driver: 'qemu',
  expect: 'address_two_owners',
  spec: { kind: 'cli', realm: 'test' },
  // A DHCP client beside networkd. Like any, it begins by taking away what addresses there are.
  before: async ({ config, disk }) => {
    const { initrd } = await vmParts(config);
    disk.write('/opt/stray/busybox', Buffer.from(fileIn(readFileSync(initrd), 'bin/busybox')));
    disk.write('/opt/stray/lease', '#!/bin/sh\n[ "$1" = deconfig ] && ip address flush dev eth0\nexit 0\n');
    disk.write(
      '/etc/systemd/system/stray.service',
      '[Unit]\nAfter=systemd-networkd.service\n[Service]\nExecStart=/opt/stray/busybox udhcpc -f -i eth0 -s /opt/stray/lease\n',
      0o644,
    );
    disk.link(
      '/etc/systemd/system/multi-user.target.wants/stray.service',
      '/etc/systemd/system/stray.service',
    );
  },
};
