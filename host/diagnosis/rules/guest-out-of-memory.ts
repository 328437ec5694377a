/** The guest's own kernel ran out of memory: its limit is the memory that the virtual machine has. */
import type { ProofLine } from '../../../protocol/diagnoses.ts';
import type { Case } from '../case.ts';
import { checked, linesOf, type Rule } from '../rule.ts';

const OUT =
  /Out of memory: Killed|System is deadlocked on memory|Initramfs unpacking failed: write error|invoked oom-killer|Cannot allocate memory/;

/** A kill counts as trouble for this long, ms; a machine that is younger than a boot may take is told all of it. */
const RECENT_MS = 300_000;
const BOOT_MS = 600_000;

/**
 * The console of a machine that runs for days holds all its kills. The guest's kernel counts from its own start, and does not count
 * its sleeps: a line of one that slept seems older than it is, and is left out rather than taken for new.
 */
function recent(found: Case, lines: readonly ProofLine[]): ProofLine[] {
  const start = found.stamps.find(({ checkpoint }) => checkpoint === 'hypervisor')?.at;
  const now = found.exit?.at ?? found.facts?.at;
  if (start === undefined || now === undefined) return [...lines];
  const ageMs = Date.parse(now) - Date.parse(start);
  if (ageMs < BOOT_MS) return [...lines];
  return lines.filter(({ text }) => {
    const seconds = /^\[ *(\d+)\.\d+\]/.exec(text)?.[1];
    return seconds !== undefined && ageMs - Number(seconds) * 1000 < RECENT_MS;
  });
}

export const guestOutOfMemory: Rule = {
  name: 'guest_out_of_memory',
  prove(found) {
    const refused = linesOf(found, 'error', /a virtual machine needs at least \d+ MiB of memory/);
    if (refused.length > 0) return refused;
    if (found.facts?.guest?.hypervisor === undefined) return undefined;
    const said = recent(found, linesOf(found, 'console.log', OUT));
    if (said.length === 0) return undefined;
    return [...said, checked(`the machine has ${found.facts.guest.memoryMiB.limit} MiB of memory`)];
  },
};
