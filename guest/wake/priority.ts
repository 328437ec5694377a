import { constants, setPriority } from 'node:os';

/** A process of the agent's that somebody waits for comes before all else in the machine. An agent that is not root leaves it as it is. */
export function goFirst(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_HIGHEST);
  } catch {
    // It has ended, or the agent may not.
  }
}

/** Does `work` so. Programs that are started meanwhile stay so. */
export async function first<T>(work: () => Promise<T>): Promise<T> {
  goFirst(process.pid);
  try {
    return await work();
  } finally {
    try {
      setPriority(process.pid, constants.priority.PRIORITY_NORMAL);
    } catch {
      // As above.
    }
  }
}
