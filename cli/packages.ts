/** What the host must have installed, why, and how it gets there. */
import { execa } from 'execa';
import {
  type HostPackage,
  IMAGE_PACKAGES,
  isInstalled,
  MACHINE_PACKAGES,
  missingOf,
  ROOTLESS_PACKAGES,
} from '../host/packages.ts';
import { PolydevError } from '../protocol/errors.ts';
import type { Output } from './output.ts';

/** What Polydev was got with is there, wherever it came from; Debian's own npm would bring a second Node. */
const GIVEN: ReadonlySet<string> = new Set(['apt', 'npm']);

/** Needed to build the golden image and to run machines. */
export const RUN_PACKAGES: readonly HostPackage[] = [...MACHINE_PACKAGES, ...IMAGE_PACKAGES].filter(
  (each) => !GIVEN.has(each.package),
);

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
  ...ROOTLESS_PACKAGES,
  { package: 'libcap2-bin', binary: 'setcap', why: 'gives files of test layers capabilities' },
];

/** The names, a line for each with its reason, and the command that gets them. */
export function describeMissing(missing: readonly HostPackage[]) {
  // One package may be needed for several things: one line says enough.
  const packages = [...new Map(missing.map((each) => [each.package, each])).values()];
  const names = packages.map((m) => m.package);
  return {
    names,
    list: packages.map((m) => `  ${m.package.padEnd(28)} ${m.why}`).join('\n'),
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
  const missing = missingOf(wanted);
  if (missing.length === 0) return;
  const { names, list, command } = describeMissing(missing);
  const obstacle = !options.install
    ? '--no-install was given'
    : process.getuid?.() !== 0
      ? 'only root can install packages'
      : !isInstalled('apt-get')
        ? 'there is no apt-get on this machine'
        : undefined;
  if (obstacle !== undefined) {
    throw new PolydevError(
      'missing_packages',
      `${names.length} packages are missing and ${obstacle}:\n${list}\nTo get them, as root: ${command}`,
    );
  }

  options.output.say(`installing ${names.length} missing packages:\n${list}`);
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
