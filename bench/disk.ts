/** What a machine takes of the host's disk. */
import { lstat, readdir } from 'node:fs/promises';
import path from 'node:path';

/** What the files of its folder take, those excepted that also have a name elsewhere; MiB, one decimal. */
export async function diskMiBOf(hostData: string, machine: string): Promise<number> {
  const folder = path.join(hostData, 'machines', machine);
  const files = new Map<number, { blocks: number; names: number; here: number }>();
  for (const name of await readdir(folder, { recursive: true })) {
    const found = await lstat(path.join(folder, name)).catch(() => undefined);
    if (found?.isFile() !== true) continue;
    const here = (files.get(found.ino)?.here ?? 0) + 1;
    files.set(found.ino, { blocks: found.blocks, names: found.nlink, here });
  }
  const own = [...files.values()].filter(({ names, here }) => names === here);
  return Math.round((own.reduce((sum, { blocks }) => sum + blocks * 512, 0) / 1_048_576) * 10) / 10;
}
