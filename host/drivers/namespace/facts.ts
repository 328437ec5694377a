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
  return { ...known, diskKiB: await spaceOf(join(diskFolder, 'upper')).catch(() => null) };
}
