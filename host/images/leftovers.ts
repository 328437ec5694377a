/** What a build that was killed left in the cache's staging area. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { adoptArchives } from './archives.ts';
import { cacheFiles } from './manifest.ts';
import type { Sandbox } from './sandbox.ts';

/** Clears the staging area, whoever owns what is there; packages that were fetched are kept. Only under the lock of builds. */
export async function clearLeftovers(cacheDir: string, sandbox: Sandbox): Promise<void> {
  const { tmpDir } = cacheFiles(cacheDir);
  await adoptArchives(cacheDir, sandbox);
  for (const name of await readdir(tmpDir)) await sandbox.remove(path.join(tmpDir, name));
}
