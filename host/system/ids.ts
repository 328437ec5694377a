/** Ranges of host user and group ids: one for each machine or image build, never two with the same, whichever instance. */
import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';
import { listIfThere } from './files.ts';
import { Leases } from './leases.ts';

/** Ids 0 to 65535 of a machine are these many host ids. */
export const ID_RANGE = 65_536;

/** Claims that all instances of this host share, unless a setting says otherwise. */
export const SHARED_FOLDER = '/run/polydev-shared';

/** The claims of id ranges below the folder that all instances share. */
export const idLeasesIn = (sharedFolder: string): Leases => new Leases(join(sharedFolder, 'ids'));

/** Above what distributions give to people, to /etc/subuid and to systemd-nspawn; all of it below 2^31. */
const BASE = 0x70000000;
const RANGES = 4096;

export const firstIdOf = (range: number): number => BASE + range * ID_RANGE;

/**
 * Claims a range for the machine (or build) whose folder is `owner`, the one its disk already has if there is one. Claiming again gives
 * what `owner` has. Claims whose owner's folder is gone are free again. Throws `machine_start_failed`.
 */
export async function claimIds(leases: Leases, owner: string, wanted: number | undefined): Promise<number> {
  const held = new Map((await leases.list()).map((lease) => [lease.number, lease.owner]));
  const take = async (range: number): Promise<boolean> => {
    const holder = held.get(range);
    if (holder !== undefined && holder !== owner) {
      if (existsSync(holder)) return false;
      await leases.release(range, holder);
    }
    return leases.claim(range, owner);
  };
  if (wanted !== undefined) {
    const range = (wanted - BASE) / ID_RANGE;
    if (Number.isInteger(range) && range >= 0 && (await take(range))) return wanted;
    throw new PolydevError(
      'machine_start_failed',
      `the machine's disk belongs to host id ${wanted}, which is not free: ${held.get(range) ?? 'not one of ours'}`,
    );
  }
  // Of an earlier host service, or of a start that was cut off.
  for (const [range, holder] of held) if (holder === owner) return firstIdOf(range);
  // From a random place on: claims are gone after a reboot, and an instance that starts earlier than another one should
  // not meet the ranges that the disks of the other's machines have.
  const first = randomInt(RANGES);
  for (let tried = 0; tried < RANGES; tried++) {
    const range = (first + tried) % RANGES;
    if (await take(range)) return firstIdOf(range);
  }
  throw new PolydevError('machine_start_failed', 'no free range of host ids');
}

export async function releaseIds(leases: Leases, owner: string): Promise<void> {
  for (const lease of await leases.list()) {
    if (lease.owner === owner) await leases.release(lease.number, owner);
  }
}

/**
 * Claims the ids of every disk below `machinesFolder` again: a reboot has emptied the folder of claims, and nobody else
 * may get the ids of a machine that is stopped. Before anything else is claimed. `owners` tell the host id of the disk in a
 * machine's folder, each for its kind of disk. Gives a sentence for each that fails.
 */
export async function claimDisks(
  idLeases: Leases,
  machinesFolder: string,
  owners: readonly ((folder: string) => number | undefined)[],
): Promise<string[]> {
  const problems: string[] = [];
  for (const name of await listIfThere(machinesFolder)) {
    const folder = join(machinesFolder, name);
    const owner = owners.map((ownerOf) => ownerOf(folder)).find((id) => id !== undefined);
    if (owner === undefined) continue;
    await claimIds(idLeases, folder, owner).catch((error: unknown) =>
      problems.push(`${name}: ${error instanceof Error ? error.message : String(error)}`),
    );
  }
  return problems;
}
