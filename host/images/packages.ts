/** What building and mounting images needs from the host; `./polydev up` installs it. */
import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';

export interface HostPackage {
  readonly package: string;
  readonly binary: string;
  readonly why: string;
}

export const requiredHostPackages: readonly HostPackage[] = [
  { package: 'mmdebstrap', binary: 'mmdebstrap', why: 'installs the Debian packages of the golden image' },
  { package: 'apt', binary: 'apt-get', why: 'fetches those packages' },
  {
    package: 'debian-archive-keyring',
    binary: '/usr/share/keyrings/debian-archive-keyring.gpg',
    why: 'checks their signatures',
  },
  { package: 'erofs-utils', binary: 'mkfs.erofs', why: 'packs the read-only layers of the golden image' },
  { package: 'npm', binary: 'npm', why: 'installs the AI CLIs into the golden image' },
  { package: 'mount', binary: 'mount', why: 'mounts the layers' },
  { package: 'util-linux', binary: 'unshare', why: 'builds and verifies in namespaces of their own' },
  { package: 'util-linux', binary: 'setpriv', why: 'ends build commands together with Polydev' },
];

async function exists(binary: string): Promise<boolean> {
  const places = path.isAbsolute(binary)
    ? [binary]
    : [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
        .filter(Boolean)
        .map((dir) => path.join(dir, binary));
  for (const place of places) {
    const found = await access(place, path.isAbsolute(binary) ? constants.R_OK : constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

/** The entries of `wanted` that this host lacks. */
export async function missingHostPackages(
  wanted: readonly HostPackage[] = requiredHostPackages,
): Promise<HostPackage[]> {
  const present = await Promise.all(wanted.map((each) => exists(each.binary)));
  return wanted.filter((_, index) => present[index] !== true);
}

/** Throws `missing_packages` naming package and reason, or `not_root`. */
export async function requireBuildHost(): Promise<void> {
  const missing = await missingHostPackages();
  if (missing.length > 0) {
    const names = [...new Set(missing.map((each) => each.package))].join(' ');
    throw new PolydevError('missing_packages', `building the golden image needs: ${names}`, {
      lines: missing.map((each) => `${each.package} (${each.binary}): ${each.why}`),
    });
  }
  if (process.getuid?.() !== 0) {
    throw new PolydevError('not_root', 'building the golden image sets owners and mounts, which needs root');
  }
}
