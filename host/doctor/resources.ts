/** Memory, disk, and whether the data directory lies on a file system that can hold what machines need. */
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { chmod, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { hostMemory, spaceOf } from '../evidence/facts.ts';
import { loopDevices as usedLoopDevices } from '../system/loops.ts';
import { type Check, fail, ok, warn } from './check.ts';

/** The limit of one browser machine by default, MiB. */
const ONE_MACHINE_MIB = 2048;

export async function memory(): Promise<Check> {
  const { total, available } = await hostMemory();
  const evidence = `${available} of ${total} MiB are available`;
  return available < ONE_MACHINE_MIB
    ? warn(
        'memory',
        `${evidence}; one machine may need ${ONE_MACHINE_MIB}`,
        'end other programs or add memory',
      )
    : ok('memory', evidence);
}

/** The folder, or where it will be made. */
function existing(folder: string): string {
  let found = folder;
  while (!existsSync(found)) found = dirname(found);
  return found;
}

export async function disk(dataDir: string): Promise<Check> {
  const folder = existing(dataDir);
  const mib = Math.round((await spaceOf(folder)).available / 1024);
  const evidence = `${mib} MiB are free under ${folder}`;
  const remedy = `free space under ${folder}, or choose another folder with --data`;
  if (mib < 1024) return fail('disk', evidence, remedy);
  return mib < 8192 ? warn('disk', evidence, remedy) : ok('disk', evidence);
}

/** Machines' disks are sparse files with a file system of their own; keys and records are files with a mode. */
const SPARSE_BYTES = 256 * 1024 * 1024;

export async function dataFolder(dataDir: string): Promise<Check> {
  const folder = existing(dataDir);
  const type = fileSystemOf(folder);
  const where = `${folder} is on ${type}`;
  const scratch = await mkdtemp(join(folder, '.doctor-'));
  try {
    const path = join(scratch, 'sparse');
    await using file = await open(path, 'w', 0o600);
    await file.truncate(SPARSE_BYTES);
    await file.write(randomBytes(4096), 0, 4096, SPARSE_BYTES - 4096);
    await file.sync();
    await chmod(path, 0o640);
    const { blocks, mode, size } = await stat(path);
    const remedy = 'choose a folder on ext4, xfs or btrfs with --data';
    if (size !== SPARSE_BYTES || blocks * 512 > SPARSE_BYTES / 2) {
      return fail(
        'data folder',
        `${where}: a sparse file of ${SPARSE_BYTES} bytes takes all its space`,
        remedy,
      );
    }
    if ((mode & 0o777) !== 0o640)
      return fail('data folder', `${where}: it does not keep modes of files`, remedy);
    return type === 'tmpfs'
      ? warn('data folder', `${where}: everything is lost when this computer restarts`, remedy)
      : ok('data folder', `${where}: sparse files and modes of files work`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Type of the file system that a folder is on: the mount with its device number, by the kernel's table. */
function fileSystemOf(folder: string): string {
  const { dev } = statSync(folder);
  // As glibc's major() and minor().
  const major = ((dev / 2 ** 32) & 0xfffff000) | ((dev >>> 8) & 0xfff);
  const minor = ((Math.floor(dev / 2 ** 12) >>> 0) & 0xffffff00) | (dev & 0xff);
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const line = lines.findLast((text) => text.split(' ')[2] === `${major}:${minor}`);
  return line?.split(' - ')[1]?.split(' ')[0] ?? 'an unknown file system';
}

/** Every machine's private disk takes one. */
export function loopDevices(): Check {
  if (!existsSync('/dev/loop-control')) {
    return fail('loop devices', '/dev/loop-control is not there', 'modprobe loop');
  }
  const used = usedLoopDevices().length;
  const all = readdirSync('/sys/block').filter((name) => name.startsWith('loop')).length;
  return ok('loop devices', `${used} are in use, ${all} exist; the kernel makes more as they are needed`);
}
