/** The ids that an ordinary user may hand out: /etc/subuid and /etc/subgid, see subuid(5). */
import { readFile } from 'node:fs/promises';
import { PolydevError } from '../../protocol/errors.ts';
import { isInstalled } from '../packages.ts';
import { ID_RANGE } from '../system/ids.ts';
import type { SubordinateIds } from '../system/userns.ts';

/** First id of the first whole range (65 536 ids) of a user in such a file; users stand there by name or by number. */
export function firstRange(text: string, user: string, uid: number): number | undefined {
  for (const line of text.split('\n')) {
    const [who, first, count] = line.trim().split(':');
    if (who !== user && who !== String(uid)) continue;
    if (/^\d+$/.test(first ?? '') && Number(count) >= ID_RANGE) return Number(first);
  }
  return undefined;
}

/** Throws `not_root` with what root has to do once. */
export async function subordinateIds(user: string, uid: number): Promise<SubordinateIds> {
  const [uids, gids] = await Promise.all(
    ['/etc/subuid', '/etc/subgid'].map(async (file) =>
      firstRange(await readFile(file, 'utf8').catch(() => ''), user, uid),
    ),
  );
  const lines = [
    ...(isInstalled('newuidmap') && isInstalled('newgidmap') ? [] : ['apt-get install uidmap']),
    ...(uids === undefined ? [`usermod --add-subuids 200000-265535 ${user}`] : []),
    ...(gids === undefined ? [`usermod --add-subgids 200000-265535 ${user}`] : []),
  ];
  if (uids === undefined || gids === undefined || lines.length > 0) {
    throw new PolydevError(
      'not_root',
      'building an image sets owners, which needs root, or subordinate ids (/etc/subuid, /etc/subgid, 65536 of each) and ' +
        `newuidmap. Root does once: ${lines.join(' && ')}`,
      { lines },
    );
  }
  return { uid: uids, gid: gids };
}
