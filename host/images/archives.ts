/**
 * Fetched packages (`debs/` of the cache), so that nothing is fetched twice. A build gets them in a folder of its staging area,
 * as links to files it cannot write, and what it fetched there is taken over when it has ended, however it ended.
 */
import { link, mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { cacheFiles } from './manifest.ts';
import type { Sandbox } from './sandbox.ts';

const archivesFolder = (cacheDir: string): string => path.join(cacheFiles(cacheDir).tmpDir, 'archives');

/** Files that are packages. Not links: whoever made them could have made them lead anywhere. */
async function packagesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return [];
  });
  return entries.filter((entry) => entry.isFile() && entry.name.endsWith('.deb')).map(({ name }) => name);
}

/** Makes the folder for one build and fills it with what was fetched before. Takes over what a build that was killed left there. */
export async function stockArchives(cacheDir: string, sandbox: Sandbox): Promise<string> {
  const { debsDir } = cacheFiles(cacheDir);
  const folder = archivesFolder(cacheDir);
  await adoptArchives(cacheDir, sandbox);
  await mkdir(path.join(folder, 'partial'), { recursive: true, mode: 0o755 });
  for (const name of await packagesIn(debsDir)) await link(path.join(debsDir, name), path.join(folder, name));
  await sandbox.give([folder, path.join(folder, 'partial')]);
  return folder;
}

/** Moves what a build has fetched to `debs/` and removes its folder. Nothing may run in the sandbox any more. */
export async function adoptArchives(cacheDir: string, sandbox: Sandbox): Promise<void> {
  const { debsDir } = cacheFiles(cacheDir);
  const folder = archivesFolder(cacheDir);
  const kept = new Set(await packagesIn(debsDir));
  const fetched = (await packagesIn(folder)).filter((name) => !kept.has(name));
  if (fetched.length > 0) {
    await mkdir(debsDir, { recursive: true, mode: 0o755 });
    await sandbox.take([folder, ...fetched.map((name) => path.join(folder, name))]);
    for (const name of fetched) await rename(path.join(folder, name), path.join(debsDir, name));
  }
  await sandbox.remove(folder);
}

/** Drops fetched packages that the finished layer did not use: older versions, mostly. */
export async function pruneArchives(cacheDir: string, used: readonly string[]): Promise<void> {
  const { debsDir } = cacheFiles(cacheDir);
  const keep = new Set(used);
  for (const name of await packagesIn(debsDir)) {
    if (!keep.has(name)) await rm(path.join(debsDir, name), { force: true });
  }
}
