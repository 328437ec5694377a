/**
 * host/drivers/vm/: what every driver of virtual machines does alike, whatever hypervisor it starts: the private disk, the
 * config drive, the words for the guest's kernel, the guest's channel, the running machine. Imports no driver.
 */
import type { MachineKind } from '../../../protocol/machine.ts';

/**
 * What every guest's kernel says on its console: its first words as early as it can, then no more than what is noteworthy, so that
 * a kernel that does not come up can be seen to be at work, and where it stays.
 */
export const KERNEL_CONSOLE = 'console=ttyS0 earlyprintk=ttyS0 loglevel=6 panic=-1';

/** What the guest's first programs (`images/vm/init`, systemd) read of the kernel's command line. */
export const guestArguments = (guest: { layers: number; kind: MachineKind; hostname: string }): string[] => [
  `polydev.layers=${guest.layers}`,
  // Nobody needs the disk of a single-use machine after a crash: it is not waited for.
  ...(guest.kind === 'browser' ? ['polydev.volatile'] : []),
  `systemd.hostname=${guest.hostname}`,
  'systemd.show_status=no',
  'systemd.unit=multi-user.target',
  // What services have to complain about is on the console then, also of a guest that nobody can ask any more.
  'systemd.journald.forward_to_console=1 systemd.journald.max_level_console=notice',
];
