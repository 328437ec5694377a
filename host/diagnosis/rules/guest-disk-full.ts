/** The layer that the machine writes to has no room. */
import { checked, linesIn, type Rule } from '../rule.ts';

const FULL_KIB = 64;

export const guestDiskFull: Rule = {
  name: 'guest_disk_full',
  prove(found) {
    const disk = found.facts?.guest?.diskKiB;
    if (disk === undefined || disk === null || disk.available >= FULL_KIB) return undefined;
    return [
      checked(`${disk.available} of ${disk.total} KiB are free on the machine's private disk`),
      ...linesIn(found, ['console.log', 'agent.log'], /ENOSPC|no space left on device/i),
    ];
  },
};
