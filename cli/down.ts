/** `./polydev down`: asks the running `up` to stop and waits until it has. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../protocol/errors.ts';
import { readLock } from './lock.ts';
import type { Output } from './output.ts';
import type { Settings } from './settings.ts';

const DEADLINE_MS = 90_000;

export async function down(settings: Settings, output: Output): Promise<void> {
  const lock = await readLock(settings);
  if (lock === undefined) {
    output.say(`nothing runs with the data directory ${settings.dataDir}`);
    return;
  }
  process.kill(lock.pid, 'SIGTERM');
  const deadline = Date.now() + DEADLINE_MS;
  while ((await readLock(settings)) !== undefined) {
    if (Date.now() > deadline) {
      throw new PolydevError(
        'child_died',
        `process ${lock.pid} has not stopped after ${DEADLINE_MS / 1000} s`,
      );
    }
    await sleep(100);
  }
  output.say('stopped');
}
