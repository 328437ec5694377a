import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';
import { diskPath } from '../vm/disk.ts';
import { basePath, isOverlay, makeOverlay, removeBase } from './overlay.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
const GIB = 1024 ** 3;
const Node = z.object({
  image: z.object({ format: z.string(), 'virtual-size': z.number(), 'cluster-size': z.number().optional() }),
});

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'polydev-overlay-'));
});
afterEach(() => rmSync(root, { recursive: true }));

/** What QEMU itself says of an image: a machine without any part that only opens it. */
function asked(file: string): z.infer<typeof Node>['image'] | undefined {
  const node = { driver: 'qcow2', 'node-name': 'it', file: { driver: 'file', filename: file } };
  const commands = ['qmp_capabilities', 'query-named-block-nodes', 'quit'];
  const said = execFileSync(
    QEMU,
    [
      ...['-nodefaults', '-display', 'none', '-machine', 'none', '-S', '-qmp', 'stdio'],
      ...['-blockdev', JSON.stringify(node)],
    ],
    { input: commands.map((execute) => JSON.stringify({ execute })).join('\n'), timeout: 30_000 },
  );
  const replies = said.toString().trim().split('\n');
  const Reply = z.object({ return: z.array(Node) });
  const nodes = replies
    .map((line) => Reply.safeParse(JSON.parse(line)).data)
    .find((reply) => reply?.return[0]);
  return nodes?.return.find(({ image }) => image.format === 'qcow2')?.image;
}

it.skipIf(process.getuid?.() !== 0)(
  'is made over a disk that stays as long as it is needed (needs root)',
  async () => {
    const base = join(root, 'base');
    writeFileSync(base, 'below');
    const folder = join(root, 'machine');
    mkdirSync(folder);
    await makeOverlay(folder, base, 2 * GIB, 12_345);
    rmSync(base);
    expect(isOverlay(folder)).toBe(true);
    expect(statSync(basePath(folder)).size).toBe(5);
    const { uid, mode, blocks } = statSync(diskPath(folder));
    expect([uid, mode & 0o777]).toEqual([12_345, 0o600]);
    expect(blocks * 512).toBeLessThan(64 * 1024);
    await removeBase(folder);
    expect(isOverlay(folder)).toBe(false);
  },
);

it.skipIf(!existsSync(QEMU) || process.getuid?.() !== 0).each([1, 2, 64, 1024])(
  'is an image that QEMU opens, of %i GiB (needs root, qemu-system-x86)',
  async (gib) => {
    const base = join(root, 'base');
    writeFileSync(base, '');
    truncateSync(base, gib * GIB);
    await makeOverlay(root, base, gib * GIB, 0);
    expect(asked(diskPath(root))).toMatchObject({ 'virtual-size': gib * GIB, 'cluster-size': 4096 });
  },
);
