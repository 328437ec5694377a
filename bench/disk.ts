/** What a machine takes of the host's disk. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

/** What the files of its folder take, those of others that are linked there excepted; MiB, one decimal. */
export async function diskMiBOf(hostData: string, machine: string): Promise<number> {
  const folder = path.join(hostData, 'machines', machine);
  const found = await Promise.all((await readdir(folder)).map((name) => stat(path.join(folder, name))));
  const own = found.filter((file) => file.isFile() && file.nlink === 1);
  return Math.round((own.reduce((sum, { blocks }) => sum + blocks * 512, 0) / 1_048_576) * 10) / 10;
}
