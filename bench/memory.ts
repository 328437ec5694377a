/** What a machine takes of the host's memory. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { PolydevError } from '../protocol/errors.ts';

/** Of its control group, version 1 or 2. */
export async function memoryOf(
  instance: string,
  machine: string,
): Promise<{ anonymousMiB: number; withCacheMiB: number }> {
  const group = path.join(`polydev-${instance}`, machine);
  const read = async (file: string) => readFile(file, 'utf8').catch(() => undefined);
  const v1 = await read(path.join('/sys/fs/cgroup/memory', group, 'memory.stat'));
  const stat = v1 ?? (await read(path.join('/sys/fs/cgroup', group, 'memory.stat')));
  if (stat === undefined) throw new PolydevError('internal', `the control group of ${machine} was not found`);
  const value = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0);
  const anonymous =
    v1 === undefined ? value('anon') + value('shmem') : value('total_rss') + value('total_shmem');
  const cache =
    v1 === undefined ? value('file') - value('shmem') : value('total_cache') - value('total_shmem');
  const mebibytes = (bytes: number) => Math.round(bytes / 1_048_576);
  return { anonymousMiB: mebibytes(anonymous), withCacheMiB: mebibytes(anonymous + cache) };
}
