/** User namespaces as descriptors: an idmapped mount is told its mapping by one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../../protocol/errors.ts';
import { PLAIN_ENVIRONMENT } from '../../system/command.ts';
import { ID_RANGE } from '../ids.ts';

/**
 * Opens a user namespace in which 0 to 65535 are the host ids from `firstId` on. The descriptor keeps it alive; the
 * process that made it is gone when this returns. The caller closes it. Throws `driver_unusable`.
 */
export async function openUserNamespace(firstId: number, signal: AbortSignal): Promise<number> {
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
    const map = `0 ${firstId} ${ID_RANGE}\n`;
    writeFileSync(`/proc/${holder.pid}/uid_map`, map);
    writeFileSync(`/proc/${holder.pid}/gid_map`, map);
    return openSync(path, 'r');
  } finally {
    holder.kill('SIGKILL');
    await gone;
  }
}

export const closeUserNamespace = (descriptor: number): void => closeSync(descriptor);
