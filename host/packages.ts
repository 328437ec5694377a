/** Debian packages that a host needs, for what, and the program or file that proves each is there. */
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';

export interface HostPackage {
  /** Debian's name. */
  readonly package: string;
  /** A program that is looked for, or a file by its whole path. */
  readonly binary: string;
  readonly why: string;
}

/** To run machines. */
export const MACHINE_PACKAGES: readonly HostPackage[] = [
  { package: 'runc', binary: 'runc', why: 'runs the machines of the namespace driver' },
  { package: 'iproute2', binary: 'ip', why: 'network namespaces and links of the machines' },
  {
    package: 'nftables',
    binary: 'nft',
    why: 'keeps machines from each other, the host and private networks',
  },
  { package: 'dnsmasq-base', binary: 'dnsmasq', why: 'names for the machines' },
  { package: 'e2fsprogs', binary: 'mke2fs', why: 'makes the private disks of the machines' },
  { package: 'openssl', binary: 'openssl', why: 'certificates of the test identity provider' },
  { package: 'mount', binary: 'mount', why: 'mounts the layers of the golden image' },
  { package: 'util-linux', binary: 'setpriv', why: 'drops root for everything that does not need it' },
  { package: 'util-linux', binary: 'unshare', why: 'gives programs namespaces of their own' },
];

/** To build the golden image, and to mount it. */
export const IMAGE_PACKAGES: readonly HostPackage[] = [
  { package: 'mmdebstrap', binary: 'mmdebstrap', why: 'builds the golden image from Debian packages' },
  { package: 'apt', binary: 'apt-get', why: 'fetches those packages' },
  {
    package: 'debian-archive-keyring',
    binary: '/usr/share/keyrings/debian-archive-keyring.gpg',
    why: 'checks their signatures',
  },
  { package: 'erofs-utils', binary: 'mkfs.erofs', why: 'writes the read-only layers of the golden image' },
  { package: 'npm', binary: 'npm', why: 'installs the AI CLIs into the golden image' },
  { package: 'mount', binary: 'mount', why: 'mounts the layers of the golden image' },
  { package: 'util-linux', binary: 'unshare', why: 'builds and verifies in namespaces of their own' },
  { package: 'util-linux', binary: 'setpriv', why: 'ends build commands together with Polydev' },
];

/** On top, to build it as an ordinary user. */
export const ROOTLESS_PACKAGES: readonly HostPackage[] = [
  { package: 'uidmap', binary: 'newuidmap', why: 'gives the build the subordinate ids of its user' },
];

/** On top, for machines that are virtual machines. */
export const VM_PACKAGES: readonly HostPackage[] = [
  { package: 'qemu-system-x86', binary: 'qemu-system-x86_64', why: 'runs the machines of the qemu driver' },
];

/** Where Debian has programs that an ordinary user's PATH may leave out. */
const SYSTEM_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** Whether a program can be executed, or a file (whole path) be read. `folders`: where programs are looked for. */
export function isInstalled(
  binary: string,
  folders: readonly string[] = [...(process.env.PATH ?? '').split(':').filter(Boolean), ...SYSTEM_FOLDERS],
): boolean {
  const whole = path.isAbsolute(binary);
  const places = whole ? [binary] : folders.map((folder) => path.join(folder, binary));
  return places.some((place) => {
    try {
      accessSync(place, whole ? constants.R_OK : constants.X_OK);
      return statSync(place).isFile();
    } catch {
      return false;
    }
  });
}

/** Those of `wanted` that are not installed here; `folders`: where programs are looked for. */
export const missingOf = (wanted: readonly HostPackage[], folders?: readonly string[]): HostPackage[] =>
  wanted.filter(({ binary }) => !isInstalled(binary, folders));

/** Their names, each once. */
export const namesOf = (packages: readonly HostPackage[]): string[] => [
  ...new Set(packages.map((each) => each.package)),
];
