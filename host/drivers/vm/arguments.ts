/**
 * host/drivers/vm/: what every driver of virtual machines does alike, whatever hypervisor it starts: the private disk, the
 * config drive, the words for the guest's kernel, the guest's channel, the running machine. Imports no driver.
 */
import type { MachineKind } from '../../../protocol/machine.ts';

/** Units of Debian that a machine without screen, keyboard, modules and hibernation does not need; measured: a third of the boot. */
const MASKED_UNITS: readonly string[] = [
  ...['getty@tty1.service', 'serial-getty@ttyS0.service', 'getty-static.service'],
  ...['e2scrub_reap.service', 'e2scrub_all.timer', 'fstrim.timer'],
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer'],
  ...['configfs', 'dm_mod', 'drm', 'efi_pstore', 'fuse', 'loop'].map((name) => `modprobe@${name}.service`),
  ...['dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'],
  ...['systemd-random-seed.service', 'systemd-sysusers.service', 'systemd-update-utmp.service'],
  ...['systemd-update-utmp-runlevel.service', 'systemd-pstore.service', 'systemd-journal-flush.service'],
  ...['systemd-modules-load.service', 'systemd-tmpfiles-clean.timer', 'systemd-remount-fs.service'],
  ...['systemd-network-generator.service', 'systemd-user-sessions.service', 'systemd-logind.service'],
  ...['dbus.service', 'dbus.socket', 'systemd-tmpfiles-setup.service', 'systemd-tmpfiles-setup-dev.service'],
];

/** What the guest's first programs (`images/vm/init`, systemd) read of the kernel's command line. */
export const guestArguments = (guest: { layers: number; kind: MachineKind; hostname: string }): string[] => [
  `polydev.layers=${guest.layers}`,
  // Nobody needs the disk of a single-use machine after a crash: it is not waited for.
  ...(guest.kind === 'browser' ? ['polydev.volatile'] : []),
  `systemd.hostname=${guest.hostname}`,
  'systemd.show_status=no',
  ...MASKED_UNITS.map((unit) => `systemd.mask=${unit}`),
];
