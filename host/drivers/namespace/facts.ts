/** What the kernel says of a machine's limits and of its disk. */
import { join } from 'node:path';
import type { Limits } from '../../../protocol/machine.ts';
import { type GuestFacts, spaceOf } from '../../evidence/facts.ts';
import { limitFacts } from '../../evidence/limits.ts';

/** Null when the machine has no control group any more. */
export async function guestFacts(
  limits: Limits,
  cgroup: string,
  diskFolder: string,
): Promise<GuestFacts | null> {
  const known = limitFacts(limits, cgroup);
  if (known === null) return null;
  // The first is there only while the private disk is mounted; the second in machines made before disks had a size.
  const diskKiB = await spaceOf(join(diskFolder, 'disk/upper'))
    .catch(() => spaceOf(join(diskFolder, 'upper')))
    .catch(() => null);
  return { ...known, diskKiB };
}
