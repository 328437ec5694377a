/** The children of an `up` that was killed: they end by themselves, but not at once. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../protocol/errors.ts';
import type { Account } from './account.ts';
import type { Output } from './output.ts';
import type { Settings } from './settings.ts';

/** Longer than the host service takes to end every machine. */
const DEADLINE_MS = 60_000;

/**
 * Host services and controllers of this instance, known by their configuration file among their arguments. Only root's
 * and the account's own processes count: a program inside a machine can call itself anything.
 */
export function findLeftovers(runDir: string, account: Account): number[] {
  const configs = ['host.json', 'controller.json'].map((name) => path.join(runDir, name));
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) => {
      try {
        const { uid } = statSync(`/proc/${pid}`);
        if (uid !== 0 && uid !== account.uid) return false;
        const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return configs.some((config) => argv.includes(config));
      } catch {
        return false; // gone meanwhile
      }
    });
}

/** Waits until they are gone. Throws `already_running` naming them when they stay. */
export async function endLeftovers(
  settings: Settings,
  account: Account,
  options: { output: Output; signal: AbortSignal; deadlineMs?: number },
): Promise<void> {
  let left = findLeftovers(settings.runDir, account);
  if (left.length === 0) return;
  options.output.say('waiting for what an earlier run left to stop');
  for (const pid of left) {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // Gone meanwhile.
    }
  }
  const end = performance.now() + (options.deadlineMs ?? DEADLINE_MS);
  while (left.length > 0) {
    if (performance.now() > end) {
      throw new PolydevError(
        'already_running',
        `processes of an earlier run do not stop: ${left.join(', ')}`,
      );
    }
    await sleep(100, undefined, { signal: options.signal });
    left = findLeftovers(settings.runDir, account);
  }
}
