/** Follows a machine's boot checklist to its end. Knows no database: the fault corpus runs this very code too. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import type { Stamp } from '../../protocol/machine.ts';
import type { AgentClient } from '../hosts/agent-client.ts';
import type { HostClient } from '../hosts/host-client.ts';
import { reportExit } from './watch.ts';

export interface BootToFollow {
  readonly host: HostClient;
  readonly agent: AgentClient;
  /** From now to `ready`. */
  readonly deadlineMs: number;
  /** Checkpoints reached before. */
  readonly before: readonly Stamp[];
  readonly onStamp: (stamp: Stamp) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Mirrors the agent's checklist until `ready`, and stops as soon as it is certain that this will not come.
 * @throws machine_exited; agent_unauthorized; what the agent gives as the reason why the boot cannot go on;
 * machine_boot_stalled with the last checkpoint after the deadline
 */
export async function followBoot(boot: BootToFollow): Promise<void> {
  const { host, agent, deadlineMs, onStamp, signal } = boot;
  const id = agent.machineId;
  const over = new AbortController();
  const stop = new AbortController();
  const limit = AbortSignal.any([signal, over.signal, stop.signal]);
  const timer = setTimeout(() => over.abort(new Error('deadline')), deadlineMs);
  const exit = (async () => {
    while (!limit.aborted) {
      try {
        await reportExit(host, id, 50, limit);
      } catch (error) {
        if (PolydevError.from(error).code === 'machine_exited') over.abort(error);
        else await sleep(200, undefined, { signal: limit }).catch(() => undefined);
      }
    }
  })();
  let last = boot.before.at(-1)?.checkpoint;
  try {
    for (;;) {
      limit.throwIfAborted();
      try {
        for await (const event of agent.boot(limit)) {
          if (event.type === 'stamp') {
            last = event.stamp.checkpoint;
            await onStamp(event.stamp);
          } else if (event.type === 'ready') {
            await onStamp({ checkpoint: 'agent', at: new Date().toISOString() });
            return;
          } else {
            throw PolydevError.fromReport(event);
          }
        }
      } catch (error) {
        // Until the agent listens, nobody answers.
        if (PolydevError.from(error).code !== 'machine_unreachable') throw error;
      }
      await sleep(40, undefined, { signal: limit });
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (!over.signal.aborted) throw error;
    if (over.signal.reason instanceof PolydevError) throw over.signal.reason;
    throw new PolydevError(
      'machine_boot_stalled',
      `machine ${id} was not ready after ${deadlineMs / 1000} s; its last checkpoint was ${last ?? 'none'}`,
    );
  } finally {
    clearTimeout(timer);
    stop.abort();
    await exit;
  }
}
