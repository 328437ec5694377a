/** Processes by number, told apart from later ones that got the same number. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot at which it started (field 22 of /proc/<pid>/stat). */
  startTicks: number;
}

/** The process now called `pid`, or undefined when there is none or only a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command name may hold spaces and brackets: fields are counted from the last bracket.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return { pid, startTicks: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

/** Whether that very process still runs. */
export const runs = (process: ProcessIdentity): boolean =>
  identify(process.pid)?.startTicks === process.startTicks;

/** Sends a signal; a process that is gone is no error. */
export function signalProcess(target: ProcessIdentity, signal: NodeJS.Signals): void {
  if (!runs(target)) return;
  try {
    process.kill(target.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Waits until it is gone. False when it still runs after `timeoutMs`. */
export async function waitGone(target: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  let pause = 2;
  while (runs(target)) {
    if (performance.now() > end) return false;
    await sleep(pause);
    pause = Math.min(pause * 2, 50);
  }
  return true;
}

/** SIGTERM, then SIGKILL after `graceMs`. */
export async function endProcess(target: ProcessIdentity, graceMs: number): Promise<void> {
  signalProcess(target, 'SIGTERM');
  if (await waitGone(target, graceMs)) return;
  signalProcess(target, 'SIGKILL');
  if (!(await waitGone(target, 5000))) throw new Error(`process ${target.pid} does not end`);
}

/** All processes of this computer for which `wanted` holds. */
export function findProcesses(wanted: (pid: number) => boolean): ProcessIdentity[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        return wanted(pid);
      } catch {
        return false; // gone meanwhile
      }
    })
    .map(identify)
    .filter((found) => found !== undefined);
}

/** Every process inside the network namespace bound at `path`; none when it does not exist. */
export function processesInNetworkNamespace(path: string): ProcessIdentity[] {
  const namespace = statSync(path, { throwIfNoEntry: false });
  if (namespace === undefined) return [];
  return findProcesses((pid) => {
    const own = statSync(`/proc/${pid}/ns/net`);
    return own.ino === namespace.ino && own.dev === namespace.dev;
  });
}
