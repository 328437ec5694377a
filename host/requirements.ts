/** What the host service needs before it can try anything: root, programs, a folder that machines can pass through. */
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PolydevError } from '../protocol/errors.ts';
import { PLAIN_ENVIRONMENT } from './system/command.ts';

/** Program -> Debian package. */
export const PROGRAMS: Readonly<Record<string, string>> = {
  runc: 'runc',
  ip: 'iproute2',
  nft: 'nftables',
  dnsmasq: 'dnsmasq-base',
  setpriv: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  mke2fs: 'e2fsprogs',
  openssl: 'openssl',
};

/** Packages whose programs are not there. */
export function missingPackages(): string[] {
  const folders = PLAIN_ENVIRONMENT.PATH.split(':');
  const missing = Object.entries(PROGRAMS).filter(
    ([program]) => !folders.some((folder) => existsSync(join(folder, program))),
  );
  return [...new Set(missing.map(([, name]) => name))];
}

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
