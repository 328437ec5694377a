/** The data directory has no room. */
import { checked, linesIn, proof, type Rule } from '../rule.ts';

/** Below this nothing that a machine needs can be written. */
const FULL_KIB = 1024;

export const hostDiskFull: Rule = {
  name: 'host_disk_full',
  prove(found) {
    const free = found.facts?.diskKiB.available;
    const said = linesIn(found, ['error', 'runtime.log'], /ENOSPC|no space left on device/i);
    if (free === undefined ? said.length === 0 : free >= FULL_KIB) return undefined;
    return proof(
      ...(free === undefined ? [] : [checked(`${free} KiB are free under the data directory`)]),
      ...said,
    );
  },
};
