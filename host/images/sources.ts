/**
 * The Debian mirrors of the image are those of the build host: this reads the host's apt sources (both formats,
 * see sources.list(5)) and keeps what is Debian's own.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';

export interface AptSource {
  readonly types: readonly string[];
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Lower-case option names of the one-line format, e.g. `signed-by`. */
  readonly options: Readonly<Record<string, string>>;
}

/** Parses the one-line format (`/etc/apt/sources.list`, `*.list`). Comments and blank lines are skipped. */
export function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*$/, '').trim();
    const match = /^(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$/.exec(line);
    if (match === null) continue;
    const [, type = '', optionText = '', uri = '', suite = '', components = ''] = match;
    const options: Record<string, string> = {};
    for (const pair of optionText.split(/\s+/).filter(Boolean)) {
      const [key = '', ...value] = pair.split('=');
      options[key.toLowerCase()] = value.join('=');
    }
    sources.push({
      types: [type],
      uris: [uri],
      suites: [suite],
      components: components.split(/\s+/).filter(Boolean),
      options,
    });
  }
  return sources;
}

/** Parses the deb822 format (`*.sources`): stanzas of `Field: value` with continuation lines; `Enabled: no` is left out. */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  const withoutComments = text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n');
  for (const stanza of withoutComments.split(/\n\s*\n/)) {
    const fields: Record<string, string> = {};
    let last = '';
    for (const line of stanza.split('\n')) {
      const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (field !== null) {
        last = (field[1] ?? '').toLowerCase();
        fields[last] = (field[2] ?? '').trim();
      } else if (last !== '' && /^\s/.test(line)) {
        fields[last] = `${fields[last] ?? ''}\n${line.trim()}`.trim();
      }
    }
    const words = (name: string): string[] => (fields[name] ?? '').split(/\s+/).filter(Boolean);
    if (/^(no|false|0|off)$/i.test(fields.enabled ?? 'yes') || words('uris').length === 0) continue;
    const { types, uris, suites, components, enabled, ...options } = fields;
    sources.push({
      types: words('types'),
      uris: words('uris'),
      suites: words('suites'),
      components: words('components'),
      options,
    });
  }
  return sources;
}

/** Options that are kept in the image's build; the rest (architectures, languages) is the host's own taste. */
const KEPT_OPTIONS = ['signed-by', 'trusted', 'check-valid-until', 'allow-insecure'];

const isDebianKey = (signedBy: string | undefined): boolean =>
  signedBy === undefined || /(^|\/)debian-[^/]*$/.test(signedBy.trim());

/**
 * The one-line sources to build `suite` from: the host's Debian sources (release, updates, security), component
 * main only, each suite named for `suite` even if the host runs another release (`hostCodename`). Third-party
 * sources are recognised by another suite or component, or by a key that is not Debian's.
 */
export function debianLines(sources: readonly AptSource[], suite: string, hostCodename?: string): string[] {
  const lines = new Set<string>();
  for (const source of sources) {
    if (!source.types.includes('deb') || !source.components.includes('main')) continue;
    if (!isDebianKey(source.options['signed-by'])) continue;
    for (const name of source.suites) {
      const match = /^([a-z]+)(-updates|-security|\/updates)?$/.exec(name);
      if (match === null || (match[1] !== suite && match[1] !== hostCodename)) continue;
      const options = KEPT_OPTIONS.flatMap((key) => {
        const value = source.options[key];
        return value === undefined || value === '' ? [] : [`${key}=${value.trim()}`];
      });
      const bracket = options.length > 0 ? ` [${options.join(' ')}]` : '';
      for (const uri of source.uris.filter((each) => !each.startsWith('cdrom:'))) {
        lines.add(`deb${bracket} ${uri} ${suite}${match[2] ?? ''} main`);
      }
    }
  }
  return [...lines];
}

async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** All enabled apt sources of a system, read below `etc` (normally `/etc`). */
export async function readHostSources(etc: string): Promise<AptSource[]> {
  const sources = parseOneLine(await readIfThere(path.join(etc, 'apt/sources.list')));
  const parts = path.join(etc, 'apt/sources.list.d');
  const names = await readdir(parts).catch(() => []);
  for (const name of names.sort()) {
    if (name.endsWith('.list')) sources.push(...parseOneLine(await readIfThere(path.join(parts, name))));
    if (name.endsWith('.sources')) sources.push(...parseDeb822(await readIfThere(path.join(parts, name))));
  }
  return sources;
}

/**
 * The lines of the `sources.list` to build `suite` from. `mirror` (a URI) replaces the host's sources; it must
 * serve `<suite>` and `<suite>-updates`. Throws `configuration_invalid` when the host has no Debian source.
 */
export async function imageSources(options: {
  suite: string;
  mirror?: string | undefined;
  etc?: string;
}): Promise<string[]> {
  const { suite, mirror, etc = '/etc' } = options;
  if (mirror !== undefined) return [`deb ${mirror} ${suite} main`, `deb ${mirror} ${suite}-updates main`];
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(
    await readIfThere(path.join(etc, 'os-release')),
  )?.[1];
  const lines = debianLines(await readHostSources(etc), suite, codename);
  if (!lines.some((line) => line.endsWith(` ${suite} main`))) {
    throw new PolydevError(
      'configuration_invalid',
      `no apt source of this host offers Debian ${suite} (looked in ${etc}/apt/sources.list and sources.list.d); set "mirror" to the URI of a Debian mirror`,
    );
  }
  return lines;
}
