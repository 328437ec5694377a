import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { debianLines, imageSources, parseDeb822, parseOneLine } from './sources.ts';

describe('parsing', () => {
  test('one-line format: options, comments, several components', () => {
    const text = [
      '# deb http://commented.example/debian bookworm main',
      'deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a.example/debian bookworm main contrib # note',
      'deb-src http://a.example/debian bookworm main',
      'deb http://b.example/flat ./',
    ].join('\n');
    expect(parseOneLine(text)).toEqual([
      {
        types: ['deb'],
        uris: ['http://a.example/debian'],
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        options: { arch: 'amd64', 'signed-by': '/usr/share/keyrings/debian-archive-keyring.gpg' },
      },
      {
        types: ['deb-src'],
        uris: ['http://a.example/debian'],
        suites: ['bookworm'],
        components: ['main'],
        options: {},
      },
      { types: ['deb'], uris: ['http://b.example/flat'], suites: ['./'], components: [], options: {} },
    ]);
  });

  test('deb822: several stanzas, comments inside, continuation lines, disabled ones left out', () => {
    const text = `Types: deb deb-src
# a comment inside a stanza
URIs: http://a.example/debian
 http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Enabled: no
Types: deb
URIs: http://c.example/debian
Suites: bookworm
Components: main
`;
    const sources = parseDeb822(text);
    expect(sources).toHaveLength(1);
    expect(sources[0]).toMatchObject({
      types: ['deb', 'deb-src'],
      uris: ['http://a.example/debian', 'http://b.example/debian'],
      suites: ['bookworm', 'bookworm-updates'],
    });
    expect(sources[0]?.options['signed-by']).toContain('PGP PUBLIC KEY');
  });
});

describe('choosing Debian', () => {
  const key = '/usr/share/keyrings/debian-archive-keyring.gpg';

  test('keeps release, updates and security; drops backports, sources and third parties', () => {
    const sources = parseOneLine(
      [
        `deb [signed-by=${key}] http://m.example/debian bookworm main contrib`,
        `deb-src [signed-by=${key}] http://m.example/debian bookworm main`,
        'deb http://m.example/debian bookworm-updates main',
        'deb http://m.example/debian bookworm-backports main',
        'deb http://s.example/debian-security bookworm-security main',
        'deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.example/apt bookworm main',
        'deb http://docker.example/linux/debian bookworm stable',
        'deb http://node.example/node nodistro main',
        'deb http://pg.example/apt bookworm-pgdg main',
        'deb cdrom:[Debian]/ bookworm main',
      ].join('\n'),
    );
    expect(debianLines(sources, 'bookworm')).toEqual([
      `deb [signed-by=${key}] http://m.example/debian bookworm main`,
      'deb http://m.example/debian bookworm-updates main',
      'deb http://s.example/debian-security bookworm-security main',
    ]);
  });

  test('a host of another release lends its mirrors', () => {
    const sources = parseOneLine(
      'deb http://m.example/debian trixie main\ndeb http://s.example/debian-security trixie-security main',
    );
    expect(debianLines(sources, 'bookworm', 'trixie')).toEqual([
      'deb http://m.example/debian bookworm main',
      'deb http://s.example/debian-security bookworm-security main',
    ]);
    expect(debianLines(sources, 'bookworm')).toEqual([]);
  });

  test('reads both formats below etc, and says so when Debian is not among them', async () => {
    const etc = await mkdtemp(path.join(tmpdir(), 'polydev-sources-'));
    try {
      await mkdir(path.join(etc, 'apt/sources.list.d'), { recursive: true });
      await writeFile(path.join(etc, 'os-release'), 'VERSION_CODENAME=bookworm\n');
      await writeFile(
        path.join(etc, 'apt/sources.list.d/vendor.list'),
        'deb http://vendor.example/ bookworm stable\n',
      );
      await expect(imageSources({ suite: 'bookworm', etc })).rejects.toMatchObject({
        code: 'configuration_invalid',
      });

      await writeFile(path.join(etc, 'apt/sources.list'), 'deb http://old.example/debian bookworm main\n');
      await writeFile(
        path.join(etc, 'apt/sources.list.d/debian.sources'),
        'Types: deb\nURIs: http://new.example/debian\nSuites: bookworm-updates\nComponents: main\n',
      );
      await writeFile(
        path.join(etc, 'apt/sources.list.d/off.sources.disabled'),
        'Types: deb\nURIs: http://x.example\nSuites: bookworm\nComponents: main\n',
      );
      expect(await imageSources({ suite: 'bookworm', etc })).toEqual([
        'deb http://old.example/debian bookworm main',
        'deb http://new.example/debian bookworm-updates main',
      ]);
      expect(await imageSources({ suite: 'bookworm', etc, mirror: 'http://mine.example/debian' })).toEqual([
        'deb http://mine.example/debian bookworm main',
        'deb http://mine.example/debian bookworm-updates main',
      ]);
    } finally {
      await rm(etc, { recursive: true });
    }
  });
});
