/** Notices that a machine's first process has ended, and how. */
import { identify, type ProcessIdentity } from './processes.ts';
import { becomeSubreaper, type WaitStatus, waitChild } from './syscalls.ts';

interface Watched {
  process: ProcessIdentity;
  ended: (status: WaitStatus) => void;
}

const POLL_MS = 250;

/**
 * One per host service. The runtime leaves a machine's first process to us (we are the reaper of our descendants), so
 * the kernel's SIGCHLD tells at once; machines adopted from an earlier host service are nobody's child here and are
 * polled, and how they ended is not known.
 */
export class ExitWatch implements Disposable {
  readonly #watched = new Set<Watched>();
  readonly #timer: NodeJS.Timeout;
  readonly #look = (): void => {
    for (const watched of this.#watched) {
      const status = look(watched.process);
      if (status === undefined) continue;
      this.#watched.delete(watched);
      watched.ended(status);
    }
  };

  constructor() {
    becomeSubreaper();
    process.on('SIGCHLD', this.#look);
    this.#timer = setInterval(this.#look, POLL_MS);
    this.#timer.unref();
  }

  /** Resolves when it has ended. */
  watch(process: ProcessIdentity): Promise<WaitStatus> {
    return new Promise((resolve) => {
      this.#watched.add({ process, ended: resolve });
      this.#look();
    });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    process.off('SIGCHLD', this.#look);
  }
}

function look(target: ProcessIdentity): WaitStatus | undefined {
  const now = identify(target.pid);
  // Another process with that number may be a child that Node waits for: it is not ours to collect.
  if (now !== undefined && now.startTicks !== target.startTicks) return { code: null, signal: null };
  const status = waitChild(target.pid);
  if (status === 'running') return undefined;
  if (status !== 'not_child') return status;
  return now === undefined ? { code: null, signal: null } : undefined;
}
