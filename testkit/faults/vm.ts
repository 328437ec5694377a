/** What faults of virtual machines need: an image cache whose kernel may be broken, a private disk with files, another QEMU. */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { cp } from 'node:fs/promises';
import path from 'node:path';
import type { HostConfig } from '../../host/config.ts';
import { diskPath } from '../../host/drivers/vm/disk.ts';
import { findVmParts, type VmParts } from '../../host/images/vm.ts';
import { ensureVmlinux } from '../../host/images/vmlinux.ts';
import { run } from '../../host/system/command.ts';
import { firstIdOf } from '../../host/system/ids.ts';
import type { Place } from './fault.ts';
import { copyImages } from './images.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
const OWNER = firstIdOf(4095);
const MIB = 1024 * 1024;

/** A host service of virtual machines, with kernel and initramfs of its own. */
export async function vmHost(config: HostConfig): Promise<Partial<HostConfig>> {
  const { folder } = await copyImages(config);
  await cp(path.join(config.imageCacheDir, 'vm'), path.join(folder, 'vm'), { recursive: true });
  return { driver: 'qemu', imageCacheDir: folder };
}

export async function vmParts(config: HostConfig): Promise<VmParts> {
  const parts = await findVmParts({ cacheDir: config.imageCacheDir, checkout: config.checkout });
  if (parts === undefined) throw new Error('there is no kernel of virtual machines');
  return parts;
}

/** The kernel that an emulated guest starts, and the packed one that it is made of. */
export async function vmKernels(config: HostConfig): Promise<{ started: string; packed: string }> {
  const { kernel } = await vmParts(config);
  return { started: await ensureVmlinux(kernel), packed: kernel };
}

/** Puts another file in the place of one of them until the fault is over. */
export function replaceFor(place: Place, file: string, change: () => void): void {
  copyFileSync(file, `${file}.kept`);
  place.defer(() => copyFileSync(`${file}.kept`, file));
  change();
}

/** Where a fault of a virtual machine puts files for its private disk. */
export const stageOf = (config: HostConfig, id: string): string => path.join(config.dataDir, 'stage', id);

/** Makes the machine's private disk out of what was staged, if anything was. */
export async function packDisk(config: HostConfig, id: string): Promise<void> {
  const stage = stageOf(config, id);
  if (!existsSync(stage)) return;
  const file = newDisk(config, id, 256);
  await run(['mke2fs', '-q', '-F', '-t', 'ext4', '-d', stage, file], { timeoutMs: 30_000 });
  rmSync(stage, { recursive: true });
}

/** A private disk without a free block. */
export async function fullDisk(config: HostConfig, id: string): Promise<void> {
  const stage = stageOf(config, id);
  mkdirSync(path.join(stage, 'upper'), { recursive: true, mode: 0o755 });
  mkdirSync(path.join(stage, 'work'));
  const file = newDisk(config, id, 32);
  const make = (): Promise<string> =>
    run([
      'mke2fs',
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      '4096',
      '-m',
      '0',
      '-O',
      '^has_journal',
      '-d',
      stage,
      file,
    ]);
  await make();
  const free = Number(/^Free blocks:\s+(\d+)/m.exec(await run(['dumpe2fs', '-h', file]))?.[1]);
  writeFileSync(path.join(stage, 'filler'), Buffer.alloc((free - 8) * 4096, 'x'));
  await make();
  rmSync(stage, { recursive: true });
}

/** A private disk with nothing on it. Returns its file. */
export function newDisk(config: HostConfig, id: string, sizeMiB: number): string {
  const folder = path.join(config.dataDir, 'machines', id);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const file = diskPath(folder);
  writeFileSync(file, '', { mode: 0o600 });
  truncateSync(file, sizeMiB * MIB);
  chownSync(file, OWNER, OWNER);
  return file;
}

/**
 * Puts a program in QEMU's place that changes its command line: `change` are lines of a shell script that sees it as "$@" and
 * may `set --` another one.
 */
export async function changeHypervisor({ config, id, defer }: Place, change: string): Promise<void> {
  const folder = path.join(config.runDir, `qemu-${id}`);
  mkdirSync(folder, { mode: 0o755 });
  const real = path.join(folder, 'qemu-system-x86_64');
  copyFileSync(QEMU, real);
  const script = path.join(folder, 'changed');
  writeFileSync(
    script,
    `#!/bin/sh\nexport QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu\n${change}\nexec ${real} -L /usr/share/qemu -L /usr/share/seabios "$@"\n`,
  );
  for (const file of [real, script]) chmodSync(file, 0o755);
  await run(['mount', '--bind', script, QEMU]);
  defer(async () => {
    await run(['umount', '-l', QEMU]);
    rmSync(folder, { recursive: true, force: true });
  });
}

/** The same for a change of words: `expression` is what sed does with each word of the command line. */
export const changeWords = (place: Place, expression: string): Promise<void> =>
  changeHypervisor(
    place,
    `for word in "$@"; do
  shift
  set -- "$@" "$(printf %s "$word" | sed '${expression}')"
done`,
  );
