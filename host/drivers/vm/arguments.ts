/**
 * host/drivers/vm/: what every driver of virtual machines does alike, whatever hypervisor it starts: the private disk, the
 * config drive, the words for the guest's kernel, the guest's channel, the running machine. Imports no driver.
 */
import type { MachineKind, Stamp } from '../../../protocol/machine.ts';
import type { Sign } from '../../machines/console.ts';

/**
 * The guest's kernel came as far as its first program, which says so at once: stamped by the host, which sees its console.
 * `keep`: writes the stamps down.
 */
export const initSign = (stamps: Stamp[], keep: () => Promise<void>): Sign => ({
  text: 'polydev-init: ',
  seen: (at) => {
    stamps.push({ checkpoint: 'init', at: at.toISOString() });
    // Without it a later host service knows less of the boot.
    void keep().catch(() => undefined);
  },
});

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
