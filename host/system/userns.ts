/** User namespaces as descriptors: an idmapped mount is told its mapping by one, and programs can be put into one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import { PLAIN_ENVIRONMENT, run } from './command.ts';
import { ID_RANGE } from './ids.ts';

/**
 * Opens a user namespace in which 0 to 65535 are the host ids from `firstId` on. Needs root. The descriptor keeps it alive;
 * the process that made it is gone when this returns. The caller closes it. Throws `driver_unusable`.
 */
export const openUserNamespace = (firstId: number, signal: AbortSignal): Promise<number> =>
  open((pid) => {
    const map = `0 ${firstId} ${ID_RANGE}\n`;
    writeFileSync(`/proc/${pid}/uid_map`, map);
    writeFileSync(`/proc/${pid}/gid_map`, map);
  }, signal);

/** First ids of 65 536 each that an ordinary user may hand out, see subuid(5) and subgid(5). */
export interface SubordinateIds {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The same for an ordinary user, by the programs that may do it (newuidmap(1)): 0 to 65535 are the user's subordinate ids,
 * and 65536 is the user, who else could not hand files over and take them back. Throws `driver_unusable`.
 */
export const openSubordinateNamespace = (
  { uid, gid }: SubordinateIds,
  own: SubordinateIds,
  signal: AbortSignal,
): Promise<number> =>
  open(async (pid) => {
    const map = (first: number, self: number): string[] =>
      ['0', first, ID_RANGE, ID_RANGE, self, 1].map(String);
    await run(['newuidmap', String(pid), ...map(uid, own.uid)], { signal, failure: 'driver_unusable' });
    await run(['newgidmap', String(pid), ...map(gid, own.gid)], { signal, failure: 'driver_unusable' });
  }, signal);

async function open(writeMaps: (pid: number) => Promise<void> | void, signal: AbortSignal): Promise<number> {
  const holder = spawn('unshare', ['--user', 'sleep', '10'], { stdio: 'ignore', env: PLAIN_ENVIRONMENT });
  const gone = once(holder, 'close').catch(() => undefined);
  try {
    const own = readlinkSync('/proc/self/ns/user');
    const path = `/proc/${holder.pid}/ns/user`;
    const inside = (): boolean => {
      try {
        return readlinkSync(path) !== own;
      } catch {
        return false;
      }
    };
    const end = performance.now() + 3000;
    while (!inside()) {
      signal.throwIfAborted();
      if (holder.pid === undefined || holder.exitCode !== null || performance.now() > end) {
        throw new PolydevError('driver_unusable', 'user namespace: `unshare --user` did not make one');
      }
      await sleep(1);
    }
    await writeMaps(Number(holder.pid));
    return openSync(path, 'r');
  } finally {
    holder.kill('SIGKILL');
    await gone;
  }
}

export const closeUserNamespace = (descriptor: number): void => closeSync(descriptor);
