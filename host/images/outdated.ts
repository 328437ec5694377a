/** What of an image could be newer: Debian's packages as the mirror has them now, and the CLIs as npm has them now. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { DEFAULT_SUITE } from '../../images/recipe.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { aptSettings, type BaseSettings } from './base.ts';
import type { ImageManifest } from './manifest.ts';
import { requireRoot } from './packages.ts';
import { run } from './run.ts';
import { imageSources } from './sources.ts';
import { openImageStore } from './store.ts';

export interface Newer {
  layer: 'base' | 'clis';
  name: string;
  /** In the image. */
  has: string;
  /** What a build would get now, or, of a CLI, what could be put into images/clis/package.json. */
  could: string;
  /** From a suite with security fixes. */
  security: boolean;
}

/** `Inst NAME [OLD] (NEW ORIGIN [ARCH])` of `apt-get --simulate`; see apt-get(8). */
export function parseUpgrades(lines: readonly string[]): Newer[] {
  return lines.flatMap((line) => {
    const match = /^Inst (\S+) \[([^\]]+)\] \((\S+) ([^)]*)\)/.exec(line);
    if (match === null) return [];
    const [, name = '', has = '', could = '', origin = ''] = match;
    return [{ layer: 'base' as const, name, has, could, security: /-security\b|\/updates\b/i.test(origin) }];
  });
}

/** Asks the mirror and npm; changes nothing. Throws `image_build_failed` with their words when they do not answer. */
export async function outdated(
  image: ImageManifest,
  options: BaseSettings & { cacheDir: string; signal: AbortSignal },
): Promise<Newer[]> {
  requireRoot('comparing an image with the mirror mounts it');
  await using cleanup = new AsyncDisposableStack();
  const scratch = await mkdtemp(path.join(tmpdir(), 'polydev-outdated-'));
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
  return [...(await newerPackages(image, scratch, options)), ...(await newerClis(image, options.signal))];
}

async function newerPackages(
  image: ImageManifest,
  scratch: string,
  options: BaseSettings & { cacheDir: string; signal: AbortSignal },
): Promise<Newer[]> {
  const { cacheDir, signal, mirror, suite = DEFAULT_SUITE } = options;
  const store = openImageStore(cacheDir, { runDir: scratch });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => store.unmountAll());
  const base = (await store.mount(image.id)).layers.at(-1);
  if (base === undefined) throw new PolydevError('image_missing', `image ${image.id} has no base`);
  await Promise.all(
    ['lists/partial', 'cache/archives/partial'].map((folder) =>
      mkdir(path.join(scratch, folder), { recursive: true }),
    ),
  );
  const sources = path.join(scratch, 'sources.list');
  await writeFile(sources, `${(await imageSources({ suite, mirror })).join('\n')}\n`, { mode: 0o600 });
  const settings = path.join(scratch, 'apt.conf');
  await writeFile(settings, `${await aptSettings(signal)}\n`, { mode: 0o600 });
  const apt = [
    'apt-get',
    `-oDir::State::status=${path.join(base, 'var/lib/dpkg/status')}`,
    `-oDir::State::Lists=${path.join(scratch, 'lists')}`,
    `-oDir::State::extended_states=${path.join(base, 'var/lib/apt/extended_states')}`,
    `-oDir::Cache=${path.join(scratch, 'cache')}`,
    `-oDir::Etc::SourceList=${sources}`,
    '-oDir::Etc::SourceParts=/dev/null',
    '-oDir::Etc::Preferences=/dev/null',
    '-oDir::Etc::PreferencesParts=/dev/null',
    '-oAPT::Install-Recommends=false',
    '-oAPT::Sandbox::User=root',
  ] as const;
  const env = { ...process.env, APT_CONFIG: settings, LC_ALL: 'C.UTF-8' };
  await run([...apt, '-qq', 'update'], { what: 'asking the mirror', deadline: 120_000, signal, env });
  return parseUpgrades(
    await run([...apt, '--simulate', '--no-download', 'dist-upgrade'], {
      what: 'comparing packages',
      deadline: 60_000,
      signal,
      env,
    }),
  );
}

async function newerClis(image: ImageManifest, signal: AbortSignal): Promise<Newer[]> {
  const contents = image.layers.find((layer) => layer.name === 'clis')?.contents ?? {};
  const found: Newer[] = [];
  for (const [name, has] of Object.entries(contents)) {
    const lines = await run(['npm', 'view', '--json', name, 'version'], {
      what: `asking npm for ${name}`,
      deadline: 60_000,
      signal,
    });
    const could = z.string().parse(JSON.parse(lines.join('\n')));
    if (could !== has) found.push({ layer: 'clis', name, has, could, security: false });
  }
  return found;
}
