/** What the kernel says of a machine's limits, from its control groups (version 1 and 2). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Limits } from '../../protocol/machine.ts';
import { cgroupFolders } from '../system/cgroups.ts';
import type { GuestFacts } from './facts.ts';

const MIB = 1024 * 1024;

/** The first of the files that one of the folders has. */
function firstOf(folders: readonly string[], names: readonly string[]): string | undefined {
  for (const folder of folders) {
    for (const name of names) {
      try {
        return readFileSync(join(folder, name), 'utf8');
      } catch {
        // Another controller's folder, or the other version.
      }
    }
  }
  return undefined;
}

const whole = (text: string | undefined): number | null => {
  const value = Number(text?.trim());
  return text === undefined || Number.isNaN(value) ? null : value;
};

const field = (text: string | undefined, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text ?? '')?.[1] ?? 0);

/** Null when the machine has no control group any more. */
export function limitFacts(
  limits: Pick<Limits, 'memoryMiB' | 'pids'>,
  cgroup: string,
): Pick<GuestFacts, 'memoryMiB' | 'oomKills' | 'pids'> | null {
  const folders = cgroupFolders(cgroup);
  if (folders.length === 0) return null;
  const read = (...names: string[]): string | undefined => firstOf(folders, names);
  const mebibytes = (bytes: number | null): number | null =>
    bytes === null ? null : Math.round(bytes / MIB);
  return {
    memoryMiB: {
      limit: limits.memoryMiB,
      peak: mebibytes(whole(read('memory.peak', 'memory.max_usage_in_bytes'))),
      used: mebibytes(whole(read('memory.current', 'memory.usage_in_bytes'))),
    },
    oomKills: field(read('memory.events', 'memory.oom_control'), 'oom_kill'),
    pids: {
      limit: limits.pids,
      refused: field(read('pids.events'), 'max'),
      used: whole(read('pids.current')),
    },
  };
}
