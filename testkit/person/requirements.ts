/** What the tests of this folder need from the machine, each named by the package or the command that brings it. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const PROGRAMS = {
  Xvnc: 'tigervnc-standalone-server',
  openbox: 'openbox',
  chromium: 'chromium',
  ip: 'iproute2',
  unshare: 'util-linux',
  openssl: 'openssl',
} as const;

/** A program that is needed; its Debian package is in the sentence that {@link missing} gives. */
export type Program = keyof typeof PROGRAMS;

/** Sentence parts for what is not there: ['Xvnc (package tigervnc-standalone-server)', ...]; empty when nothing is. */
export function missing(...programs: Program[]): string[] {
  const folders = (process.env.PATH ?? '').split(':').concat('/usr/bin', '/usr/sbin', '/sbin');
  const there = (program: Program) => folders.some((folder) => existsSync(join(folder, program)));
  return programs
    .filter((program) => !there(program))
    .map((program) => `${program} (package ${PROGRAMS[program]})`);
}

/**
 * A genuine Codex for a test: the native program that POLYDEV_TEST_CODEX names, or the newest CLI layer in the golden
 * image store (below POLYDEV_CACHE, default /var/cache/polydev). `undefined` when there is neither.
 */
export function codexForTests(): string | undefined {
  const named = process.env.POLYDEV_TEST_CODEX;
  if (named) return named;
  const layers = join(process.env.POLYDEV_CACHE ?? '/var/cache/polydev', 'images', 'layers');
  const found = existsSync(layers) ? readdirSync(layers) : [];
  const layer = found.findLast((name) => /^clis-[0-9a-f]{16}\.erofs$/.test(name));
  return layer && join(layers, layer);
}
