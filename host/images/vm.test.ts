import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { VM_COMMANDS } from '../../images/vm.ts';
import { CHECKOUT } from '../testing/fixture.ts';
import { cpio, cpioFile, cpioFolder, cpioLink } from './cpio.ts';
import { loadOrder, moduleNeeds } from './vm.ts';

it('packs an archive as the kernel wants it, the same bytes every time', () => {
  const entries = [cpioFolder('bin'), cpioFile('bin/a', Buffer.from('12345'), 0o755), cpioLink('bin/b', 'a')];
  const archive = cpio(entries);
  expect(cpio(entries).equals(archive)).toBe(true);
  // Walk it by the sizes in its own headers: every entry begins at a multiple of four.
  const seen: string[] = [];
  for (let at = 0; at < archive.length; ) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const name = archive.toString('latin1', at + 110, at + 110 + nameSize - 1);
    const content = Math.ceil((at + 110 + nameSize) / 4) * 4;
    seen.push(`${name} ${mode.toString(8)} ${archive.toString('latin1', content, content + size)}`.trim());
    at = Math.ceil((content + size) / 4) * 4;
  }
  expect(seen).toEqual(['bin 40755', 'bin/a 100755 12345', 'bin/b 120777 a', 'TRAILER!!! 0']);
});

it('reads what a kernel module needs', () => {
  const section = (text: string): Buffer => Buffer.from(`\x7fELF\0license=GPL\0${text}vermagic=6\0`);
  expect(moduleNeeds(section('depends=libcrc32c,lz4\0'))).toEqual(['libcrc32c', 'lz4']);
  expect(moduleNeeds(section('depends=\0'))).toEqual([]);
  expect(moduleNeeds(section(''))).toEqual([]);
});

it('loads a kernel module for the devices it names, and what it needs with it', () => {
  const module = (name: string, needs: string, ...aliases: string[]) => ({
    name,
    content: Buffer.from(
      `\x7fELF\0${aliases.map((each) => `alias=${each}\0`).join('')}depends=${needs}\0vermagic=6\0`,
    ),
  });
  const modules = [
    module('virtio', ''),
    module('virtio_mmio', 'virtio', 'of:N*T*Cvirtio,mmio', 'acpi*:LNRO0005:*'),
    module('pci_dev', ''),
    module('virtio_pci', 'virtio,pci-dev', 'pci:v00001AF4d*'),
    module('failover', ''),
    module('virtio_net', 'failover,virtio', 'virtio:d00000001v*'),
    module('other_net', 'failover', 'virtio:d00000021v*', 'virtio:d00000022v*'),
    module('erofs', '', 'fs-erofs'),
  ];
  expect(loadOrder(modules).trimEnd().split('\n')).toEqual([
    'virtio',
    'virtio_mmio',
    'pci_dev pci:v00001AF4d*',
    'virtio_pci pci:v00001AF4d*',
    'failover virtio:d00000001v* virtio:d00000021v* virtio:d00000022v*',
    'virtio_net virtio:d00000001v*',
    'other_net virtio:d00000021v* virtio:d00000022v*',
    'erofs',
  ]);
});

it('gives the first program every command it calls', () => {
  const script = readFileSync(join(CHECKOUT, 'images/vm/init'), 'utf8').replaceAll(/^\s*#.*$/gm, '');
  const words = new Set(script.match(/[a-z_]+/g));
  for (const command of VM_COMMANDS.filter((each) => each !== 'sh')) expect(words).toContain(command);
  const called = [...script.matchAll(/^\s*(?:exec )?([a-z_]+) /gm)].map((match) => match[1] ?? '');
  const shell = [
    'case',
    'esac',
    'read',
    'while',
    'done',
    'if',
    'for',
    'export',
    'echo',
    'say',
    'fail',
    'return',
    ...['known', 'disk', 'present'],
  ];
  const unknown = called.filter((word) => ![...VM_COMMANDS, ...shell].includes(word));
  expect(unknown).toEqual([]);
});
