/** What the host must have installed, why, and how it gets there. */
import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { PolydevError } from '../protocol/errors.ts';
import type { Output } from './output.ts';

export interface HostPackage {
  /** Debian's name. */
  readonly package: string;
  /** A program or file that proves it is there. */
  readonly binary: string;
  readonly why: string;
}

/** Needed to run machines. */
export const RUN_PACKAGES: readonly HostPackage[] = [
  { package: 'runc', binary: 'runc', why: 'runs the machines of the namespace driver' },
  { package: 'iproute2', binary: 'ip', why: 'network namespaces and links of the machines' },
  {
    package: 'nftables',
    binary: 'nft',
    why: 'keeps machines from each other, the host and private networks',
  },
  { package: 'dnsmasq-base', binary: 'dnsmasq', why: 'names for the machines' },
  { package: 'mmdebstrap', binary: 'mmdebstrap', why: 'builds the golden image from Debian packages' },
  { package: 'erofs-utils', binary: 'mkfs.erofs', why: 'writes the read-only layers of the golden image' },
  { package: 'e2fsprogs', binary: 'mke2fs', why: 'makes the private disks of the machines' },
  { package: 'openssl', binary: 'openssl', why: 'certificates of the test identity provider' },
  { package: 'util-linux', binary: 'setpriv', why: 'drops root for everything that does not need it' },
];

/** Needed on top by machines that are virtual machines. */
export const VM_PACKAGES: readonly HostPackage[] = [
  { package: 'qemu-system-x86', binary: 'qemu-system-x86_64', why: 'runs the machines of the qemu driver' },
];

/** Needed by `./polydev test` on top: a browser that looks at the dashboard, and a desktop to watch. */
export const TEST_PACKAGES: readonly HostPackage[] = [
  { package: 'chromium', binary: 'chromium', why: 'opens the dashboard as a person would' },
  {
    package: 'tigervnc-standalone-server',
    binary: 'Xvnc',
    why: 'a real desktop for the tests of the live view',
  },
  { package: 'openbox', binary: 'openbox', why: 'the window manager of that desktop' },
  { package: 'xterm', binary: 'xterm', why: 'takes the keys that the tests type through the live view' },
  { package: 'curl', binary: 'curl', why: 'plays a browser and a viewer for the guest agent' },
  { package: 'procps', binary: 'pgrep', why: 'finds the processes that the tests kill' },
  { package: 'xdotool', binary: 'xdotool', why: 'tells when a window is really shown' },
];

async function present(binary: string): Promise<boolean> {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const directory of directories) {
    if (directory === '') continue;
    const found = await access(path.join(directory, binary), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

/** Those of `wanted` that are not installed here. */
export async function missingPackages(wanted: readonly HostPackage[]): Promise<HostPackage[]> {
  const missing: HostPackage[] = [];
  for (const item of wanted) if (!(await present(item.binary))) missing.push(item);
  return missing;
}

/** The names, a line for each with its reason, and the command that gets them. */
export function describeMissing(missing: readonly HostPackage[]) {
  const names = missing.map((m) => m.package);
  return {
    names,
    list: missing.map((m) => `  ${m.package.padEnd(28)} ${m.why}`).join('\n'),
    command: `apt-get install -y --no-install-recommends ${names.join(' ')}`,
  };
}

/**
 * Installs what is missing, saying what and why. Throws `missing_packages`, naming the command, when it may not
 * (`install: false`), is not root, or there is no apt.
 */
export async function ensurePackages(
  wanted: readonly HostPackage[],
  options: { install: boolean; output: Output; signal: AbortSignal },
): Promise<void> {
  const missing = await missingPackages(wanted);
  if (missing.length === 0) return;
  const { names, list, command } = describeMissing(missing);
  const obstacle = !options.install
    ? '--no-install was given'
    : process.getuid?.() !== 0
      ? 'only root can install packages'
      : !(await present('apt-get'))
        ? 'there is no apt-get on this machine'
        : undefined;
  if (obstacle !== undefined) {
    throw new PolydevError(
      'missing_packages',
      `${missing.length} packages are missing and ${obstacle}:\n${list}\nTo get them, as root: ${command}`,
    );
  }

  options.output.say(`installing ${missing.length} missing packages:\n${list}`);
  const apt = async (args: string[]) =>
    execa('apt-get', args, {
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      stdin: 'ignore',
      all: true,
      reject: false,
      timeout: 900_000,
      cancelSignal: options.signal,
    });
  // Lists may be old or absent on a fresh machine; a failure here shows again, better explained, in the install.
  await apt(['-q', 'update']);
  const result = await apt(['-q', 'install', '-y', '--no-install-recommends', ...names]);
  if (result.failed) {
    throw new PolydevError('missing_packages', `${command} failed`, {
      lines: result.all.split('\n').slice(-15),
    });
  }
}
