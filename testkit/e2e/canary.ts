/** Searches for a secret everywhere a careless program would leave it. */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

/**
 * The places below `directories`, and the arguments and environments of all processes, where one of the secrets
 * occurs: plain, base64 or base64url of the plain text at any alignment (its inner part). Files over 256 MiB are skipped,
 * and so is every mount below: the image, and the roots of machines, whose own files are found where they are kept.
 */
export async function placesWith(
  secrets: readonly string[],
  directories: readonly string[],
): Promise<string[]> {
  const needles = secrets.flatMap((secret) => [Buffer.from(secret), ...encoded(secret)]);
  const has = (content: Buffer) => needles.some((needle) => content.includes(needle));
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  const mounts = new Set(mountinfo.split('\n').map((line) => line.split(' ')[4] ?? ''));
  const places: string[] = [];
  const search = async (directory: string): Promise<void> => {
    for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
      const file = path.join(directory, entry.name);
      if (entry.isDirectory() && !mounts.has(file)) await search(file);
      if (!entry.isFile()) continue;
      const facts = await stat(file).catch(() => undefined);
      if (facts === undefined || facts.size > 256 * 1024 * 1024) continue;
      const content = await readFile(file).catch(() => undefined);
      if (content !== undefined && has(content)) places.push(file);
    }
  };
  for (const directory of directories) await search(directory);
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    for (const name of ['cmdline', 'environ']) {
      const content = await readFile(`/proc/${pid}/${name}`).catch(() => undefined);
      if (content !== undefined && has(content)) places.push(`/proc/${pid}/${name}`);
    }
  }
  return places;
}

/** The part of a base64 text that does not depend on what stands before or after the secret, for each alignment. */
function encoded(secret: string): Buffer[] {
  return [0, 1, 2].flatMap((shift) => {
    const bytes = Buffer.concat([Buffer.alloc(shift), Buffer.from(secret)]);
    const inner = (text: string) => Buffer.from(text.slice(4, -4));
    return [inner(bytes.toString('base64')), inner(bytes.toString('base64url'))];
  });
}
