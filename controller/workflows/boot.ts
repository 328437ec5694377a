/** Follows a machine's boot checklist to its end. Knows no database: the fault corpus runs this very code too. */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import { type Checkpoint, checklist, type MachineKind, type Stamp } from '../../protocol/machine.ts';
import type { AgentClient } from '../hosts/agent-client.ts';
import type { HostClient } from '../hosts/host-client.ts';
import type { Deadline } from './deadlines.ts';
import { reportExit } from './watch.ts';

export interface BootToFollow {
  readonly host: HostClient;
  readonly agent: AgentClient;
  readonly kind: MachineKind;
  /** When the start was requested; deadlines count from then. */
  readonly startedAt: Date;
  /** Asked again before a machine is given up: the host may have become busier. Must not throw. */
  readonly deadline: (checkpoint: Checkpoint) => Promise<Deadline>;
  /** The version that the image's agent was verified with; null: not known. */
  readonly agentVersion: string | null;
  /** Checkpoints reached before. */
  readonly before: readonly Stamp[];
  readonly onStamp: (stamp: Stamp) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Mirrors the agent's checklist until `ready`, and stops as soon as it is certain that this will not come.
 * @throws machine_exited; agent_unauthorized; agent_version_wrong at the agent's first answer; what the agent gives as
 * the reason why the boot cannot go on; machine_boot_stalled naming the checkpoint whose deadline passed, and what the
 * deadline was made from
 */
export async function followBoot(boot: BootToFollow): Promise<void> {
  const { host, agent, onStamp, signal } = boot;
  const id = agent.machineId;
  const over = new AbortController();
  const stop = new AbortController();
  const limit = AbortSignal.any([signal, over.signal, stop.signal]);
  const reached = new Set<Checkpoint>(['hypervisor', ...boot.before.map(({ checkpoint }) => checkpoint)]);
  let last = boot.before.at(-1)?.checkpoint;
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
  const mark = async (stamp: Stamp): Promise<void> => {
    last = stamp.checkpoint;
    reached.add(stamp.checkpoint);
    await onStamp(stamp);
  };
  // What its host saw of it meanwhile: a guest whose kernel came up and whose agent did not.
  const seenByHost = async (): Promise<Checkpoint | undefined> => {
    const stamps = (await host.get(id, limit).catch(() => undefined))?.stamps ?? [];
    for (const stamp of stamps) if (!reached.has(stamp.checkpoint)) await mark(stamp);
    return last;
  };
  const overdue = watchDeadlines(boot, reached, over, limit, seenByHost);
  let known = boot.agentVersion === null;
  let askHostAt = 0;
  try {
    for (;;) {
      limit.throwIfAborted();
      try {
        if (!known) await checkVersion(agent, boot.agentVersion, limit);
        known = true;
        for await (const event of agent.boot(limit)) {
          if (event.type === 'stamp') await mark(event.stamp);
          else if (event.type === 'ready') {
            await mark({ checkpoint: 'agent', at: new Date().toISOString() });
            return;
          } else throw PolydevError.fromReport(event);
        }
      } catch (error) {
        // Until the agent listens, nobody answers.
        if (PolydevError.from(error).code !== 'machine_unreachable') throw error;
      }
      // Until then its host may see how far it is.
      if (!reached.has('init') && performance.now() >= askHostAt) {
        await seenByHost();
        askHostAt = performance.now() + HOST_EVERY_MS;
      }
      await sleep(40, undefined, { signal: limit });
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (over.signal.aborted) throw over.signal.reason;
    throw error;
  } finally {
    stop.abort();
    await Promise.all([exit, overdue]);
  }
}

/** So often the host is asked what it sees of a guest that nobody can ask, ms. */
const HOST_EVERY_MS = 500;

/** What else it does is of no interest when it is not the agent that was verified. */
async function checkVersion(agent: AgentClient, wanted: string | null, signal: AbortSignal): Promise<void> {
  const { version } = await agent.health(signal);
  if (version === wanted) return;
  throw new PolydevError(
    'agent_version_wrong',
    `the agent of machine ${agent.machineId} says version ${version}; its image was verified with ${wanted}`,
  );
}

/** A controller that takes up a boot must have time to read the checklist, however long ago the start was, ms. */
const LEAST_WAIT_MS = 5_000;
/** So often the deadlines are looked at, ms. */
const EVERY_MS = 500;

/** Ends the boot when a checkpoint is missing after its deadline: the first missing one of the checklist is named. */
async function watchDeadlines(
  boot: BootToFollow,
  reached: ReadonlySet<Checkpoint>,
  over: AbortController,
  limit: AbortSignal,
  last: () => Promise<Checkpoint | undefined>,
): Promise<void> {
  const begin = performance.now();
  const earlier = Math.max(0, Date.now() - boot.startedAt.getTime());
  // What was fixed at the beginning says when to look; what is fixed then says whether it is over.
  const due = new Map<Checkpoint, number>();
  for (const checkpoint of checklist(boot.kind)) due.set(checkpoint, (await boot.deadline(checkpoint)).ms);
  while (!limit.aborted) {
    const here = performance.now() - begin;
    const elapsed = earlier + here;
    for (const checkpoint of checklist(boot.kind)) {
      if (reached.has(checkpoint) || elapsed < (due.get(checkpoint) ?? 0) || here < LEAST_WAIT_MS) continue;
      const deadline = await boot.deadline(checkpoint);
      due.set(checkpoint, deadline.ms);
      if (elapsed < deadline.ms || limit.aborted || reached.has(checkpoint)) continue;
      const late = Number((deadline.ms / 1000).toPrecision(3));
      const furthest = await last();
      if (limit.aborted || reached.has(checkpoint)) continue;
      const message =
        `machine ${boot.agent.machineId} did not reach "${checkpoint}" within ${late} s of its start; ` +
        `its last checkpoint was ${furthest ?? 'none'}`;
      const lines = [`deadline of ${checkpoint}: ${late} s from the start (${deadline.from})`];
      over.abort(new PolydevError('machine_boot_stalled', message, { lines }));
      return;
    }
    await sleep(EVERY_MS, undefined, { signal: limit }).catch(() => undefined);
  }
}
