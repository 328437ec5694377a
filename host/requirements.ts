/** What the host service needs before it can try anything: root, programs, a folder that machines can pass through. */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { PolydevError } from '../protocol/errors.ts';
import { MACHINE_PACKAGES, missingOf, namesOf } from './packages.ts';
import { PLAIN_ENVIRONMENT } from './system/command.ts';

/** Packages that machines need and this host lacks, by name: where the host service looks for programs. */
export const missingPackages = (): string[] =>
  namesOf(missingOf(MACHINE_PACKAGES, PLAIN_ENVIRONMENT.PATH.split(':')));

/** Throws `not_root`, `missing_packages` or `configuration_invalid`. */
export function checkRequirements(runDir: string): void {
  if (process.getuid?.() !== 0) throw new PolydevError('not_root', 'the host service does not run as root');
  const missing = missingPackages();
  if (missing.length > 0) throw new PolydevError('missing_packages', `not installed: ${missing.join(' ')}`);
  // The runtime sets up a machine as the machine's own root, which is nobody special on this host.
  for (let folder = dirname(runDir); ; folder = dirname(folder)) {
    const found = statSync(folder, { throwIfNoEntry: false });
    if (found !== undefined && (found.mode & 0o001) === 0) {
      throw new PolydevError(
        'configuration_invalid',
        `runDir ${runDir}: ${folder} lets only its owner pass through`,
      );
    }
    if (folder === dirname(folder)) return;
  }
}
