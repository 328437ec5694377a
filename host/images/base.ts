/** The base layer: Debian packages by mmdebstrap, then `images/customize.sh`. */
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BASE_PACKAGES, DEFAULT_SUITE, EPOCH, PATH_EXCLUDES, PATH_INCLUDES } from '../../images/recipe.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { adoptArchives, pruneArchives, stockArchives } from './archives.ts';
import { DEVICES, makePlaceholders } from './devices.ts';
import { layerId, sha256 } from './identity.ts';
import { type FillContext, type LayerPlan, PACKING } from './layer.ts';
import { differences, lockedVersions, readPackageLock } from './package-lock.ts';
import { run } from './run.ts';
import { imageSources } from './sources.ts';

export interface BaseSettings {
  /** Debian suite, default bookworm. */
  readonly suite?: string | undefined;
  /** URI of a Debian mirror, instead of the host's own apt sources. */
  readonly mirror?: string | undefined;
  /** Refuse packages of other versions than images/packages.lock.json names. */
  readonly locked?: boolean | undefined;
}

/** Debian's name of this machine's architecture. */
export function debianArchitecture(): 'amd64' | 'arm64' {
  if (process.arch === 'x64') return 'amd64';
  if (process.arch === 'arm64') return 'arm64';
  throw new PolydevError(
    'driver_unusable',
    `there is no golden image for ${process.arch}: only x64 and arm64`,
  );
}

/** Part of the layer's identity. Its `root` mode is right in a user namespace too: it finds out what it may mount and make. */
const mmdebstrapOptions = (): string[] => [
  '--mode=root',
  '--format=directory',
  '--variant=minbase',
  '--verbose',
  `--architectures=${debianArchitecture()}`,
  '--aptopt=Apt::Install-Recommends "false"',
  '--aptopt=Acquire::Retries "3"',
  ...PATH_EXCLUDES.map((glob) => `--dpkgopt=path-exclude=${glob}`),
  ...PATH_INCLUDES.map((glob) => `--dpkgopt=path-include=${glob}`),
  `--include=${BASE_PACKAGES.join(',')}`,
];

/** Plans the base layer of a checkout. Its identity covers suite, packages, their lock, options and script, but not the mirror. */
export async function planBase(checkout: string, settings: BaseSettings = {}): Promise<LayerPlan> {
  const suite = settings.suite ?? DEFAULT_SUITE;
  const script = path.join(checkout, 'images/customize.sh');
  const options = mmdebstrapOptions();
  const lock = lockedVersions(await readPackageLock(checkout), suite, debianArchitecture());
  const id = layerId('base', {
    suite,
    options,
    epoch: EPOCH,
    script: sha256(await readFile(script)),
    lock: lock ?? null,
    packing: PACKING.base,
  });
  return {
    name: 'base',
    id,
    packing: PACKING.base,
    devices: DEVICES,
    async fill(root, context) {
      const found = await installPackages(root, context, { suite, mirror: settings.mirror, options, script });
      const others = lock === undefined ? [] : differences(lock, found);
      if (others.length === 0) return found;
      if (settings.locked === true) {
        throw new PolydevError(
          'image_build_failed',
          `${others.length} packages of the mirror are not those of images/packages.lock.json`,
          { lines: others },
        );
      }
      context.log(`note: ${others.length} packages are not as locked: ${others.join('; ')}`);
      return found;
    },
  };
}

/** Host apt settings that fetching needs too; written to a file, since a proxy's URI may hold a password. */
export async function aptSettings(signal: AbortSignal): Promise<string> {
  const dump = await run(['apt-config', 'dump'], { what: 'reading apt settings', deadline: 30_000, signal });
  return dump
    .filter((line) => /^Acquire::(https?::(Proxy|Timeout)|Check-Valid-Until|Max-ValidTime)\b/i.test(line))
    .join('\n');
}

async function installPackages(
  root: string,
  context: FillContext,
  recipe: { suite: string; mirror: string | undefined; options: string[]; script: string },
): Promise<Record<string, string>> {
  const { scratch, signal, cacheDir, sandbox } = context;
  const sources = path.join(scratch, 'sources.list');
  const apt = path.join(scratch, 'apt.conf');
  const script = path.join(scratch, 'customize.sh');
  const temporary = path.join(scratch, 'tmp');
  const lines = await imageSources(recipe);
  await writeFile(sources, `${lines.join('\n')}\n`, { mode: 0o600 });
  await writeFile(apt, `${await aptSettings(signal)}\n`, { mode: 0o600 });
  if (!lines.some((line) => /-security |\/updates /.test(line))) {
    context.log(`warning: no apt source of this host offers ${recipe.suite}-security`);
  }
  // The checkout may be where the sandbox cannot go.
  await writeFile(script, await readFile(recipe.script));
  await chmod(script, 0o755);
  await mkdir(temporary);
  await chmod(temporary, 0o1777);
  await sandbox.give([root, sources, apt, temporary]);
  const stock = await stockArchives(cacheDir, sandbox);

  // The packages are kept outside of the root, so that a build that was stopped does not fetch them again. The bind
  // mount lives in the mount namespace of this one command: when the command ends, however it ends, it is gone.
  const archives = '"$1"/var/cache/apt/archives';
  const install = sandbox.run(
    [
      'mmdebstrap',
      ...recipe.options,
      // The root is thrown away if the host crashes, so dpkg need not sync every file. Changes no byte of the result.
      '--dpkgopt=force-unsafe-io',
      `--aptopt=${apt}`,
      // The script removes apt's lists and, with /tmp, mmdebstrap's settings of apt: its own cleaning would then be that of the host.
      '--skip=download/empty,essential/unlink,cleanup/apt',
      `--setup-hook=mkdir -p ${archives} && mount --bind ${quote(stock)} ${archives}`,
      `--customize-hook=umount ${archives}`,
      `--customize-hook=${script}`,
      recipe.suite,
      root,
      sources,
    ],
    {
      what: `installing Debian ${recipe.suite}`,
      deadline: 3_600_000,
      signal,
      env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH), LC_ALL: 'C.UTF-8', TMPDIR: temporary },
      onLine: aptProgress(context),
    },
  );
  await install.finally(() => adoptArchives(cacheDir, sandbox));
  if (sandbox.confined) await makePlaceholders(root, sandbox, signal);
  const packages = await sandbox.run(['chroot', root, 'dpkg-query', '--show', PACKAGE_FORMAT], {
    what: 'listing packages',
    deadline: 60_000,
    signal,
  });
  const rows = packages.map((line) => line.split('\t'));
  await pruneArchives(
    cacheDir,
    rows.map(([name, version, arch]) => `${name}_${version?.replaceAll(':', '%3a')}_${arch}.deb`),
  );
  return Object.fromEntries(rows.map(([name = '', version = '']) => [name, version]));
}

/** dpkg-query's own placeholders, not a template of ours. */
const PACKAGE_FORMAT = `--showformat=\${Package}\\t\${Version}\\t\${Architecture}\\n`;

/** One word of a POSIX shell command line (mmdebstrap's hooks are shell text). */
const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

const UNITS: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };

/** `12.3 MB` -> bytes; 0 for anything else. */
export function parseAptSize(text: string): number {
  const match = /^([\d.,]+) ([kMG]?B)$/.exec(text.trim());
  return match === null
    ? 0
    : Math.round(Number((match[1] ?? '').replaceAll(',', '')) * (UNITS[match[2] ?? ''] ?? 0));
}

/**
 * Follows the output of apt and dpkg: bytes fetched from the `Get:` lines, progress from the count of packages
 * unpacked and set up. apt runs three times (lists, essential packages, the rest), so totals add up as they appear.
 */
export function aptProgress(context: Pick<FillContext, 'progress' | 'log'>): (line: string) => void {
  let packages = 0;
  let unpacked = 0;
  let configured = 0;
  let fetched = 0;
  let wanted = 0;
  const report = (message: string): void => {
    // Fetching counts as one third of the work, unpacking and setting up as one each.
    const share = (part: number, whole: number): number => (whole === 0 ? 0 : Math.min(1, part / whole) / 3);
    const fetching = wanted === 0 ? (unpacked > 0 ? 1 / 3 : 0) : share(fetched, wanted);
    const fraction = fetching + share(unpacked, packages) + share(configured, packages);
    context.progress({ message, bytes: fetched, fraction: Math.min(1, fraction) });
  };
  return (line) => {
    context.log(line);
    const step = /^I: (.+)$/.exec(line)?.[1];
    if (step !== undefined && !step.startsWith('running --')) report(step);
    const plan = /(\d+) newly installed/.exec(line);
    // What was unpacked before belongs to an earlier run of apt; mmdebstrap may announce one run twice.
    if (plan !== null) packages = unpacked + Number(plan[1]);
    const need = /^Need to get (?:([\d.,]+ [kMG]?B)\/)?([\d.,]+ [kMG]?B) of archives/.exec(line);
    if (need !== null) wanted = fetched + parseAptSize(need[1] ?? need[2] ?? '');
    const get = /^Get:\d+ .*\[([\d.,]+ [kMG]?B)\]$/.exec(line);
    if (get !== null && !/ (InRelease|Packages|Translation-\S+) /.test(line)) {
      fetched += parseAptSize(get[1] ?? '');
      report(`fetching ${/ (\S+) \S+ \S+ \[/.exec(line)?.[1] ?? 'packages'}`);
    }
    const action = /^(Unpacking|Setting up) (\S+)/.exec(line);
    if (action?.[1] === 'Unpacking') report(`unpacking ${action[2]} (${++unpacked} of ${packages})`);
    if (action?.[1] === 'Setting up') report(`setting up ${action[2]} (${++configured} of ${packages})`);
  };
}
