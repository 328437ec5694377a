/** A copy of the image cache that a fault may break: the large layers are shared, the agent's is its own. */
import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostConfig } from '../../host/config.ts';
import { openImageStore } from '../../host/images/store.ts';

/** Returns the folder of the copy and the file of its agent layer. */
export async function copyImages({ dataDir, imageCacheDir }: HostConfig): Promise<{
  folder: string;
  agent: string;
}> {
  const folder = path.join(dataDir, 'images');
  for (const name of ['layers', 'images']) await mkdir(path.join(folder, name), { recursive: true });
  const image = await openImageStore(imageCacheDir).current();
  if (image === undefined) throw new Error('there is no current image');
  await writeFile(
    path.join(folder, 'images', `${image.id}.json`),
    await readFile(path.join(imageCacheDir, 'images', `${image.id}.json`)),
  );
  await writeFile(path.join(folder, 'current'), `${image.id}\n`);
  let agent = '';
  for (const { name, file } of image.layers) {
    const [from, to] = [path.join(imageCacheDir, file), path.join(folder, file)];
    if (name === 'agent') {
      await copyFile(from, to);
      agent = to;
    } else await symlink(from, to);
  }
  return { folder, agent };
}
