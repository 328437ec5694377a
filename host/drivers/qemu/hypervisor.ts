/** Starts one QEMU: without root, without capabilities, in an empty network namespace, inside its cgroup, on inherited files. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../../protocol/errors.ts';
import { type CgroupLimits, joinCgroup, makeCgroup } from '../../system/cgroups.ts';
import { spawnIn, unprivileged } from '../../system/command.ts';
import { identify, type ProcessIdentity } from '../../system/processes.ts';
import type { WaitStatus } from '../../system/syscalls.ts';
import { Qmp } from './qmp.ts';
import { continueGuest } from './sleep.ts';

export interface HypervisorStart {
  argv: readonly string[];
  /** Descriptors for the child from 3 on. */
  inherit: readonly number[];
  /** Descriptor for what it says itself. */
  output: number;
  uid: number;
  /** A group besides, for the right to a device. */
  group?: number | undefined;
  netns: string;
  cgroup: string;
  limits: CgroupLimits;
  qmpPath: string;
  /** It goes on with a saved guest; `devices`: its descriptor of what is loaded when asked. */
  wakes?: { devices: number | undefined } | undefined;
}

export interface Hypervisor {
  process: ProcessIdentity;
  exited: Promise<WaitStatus>;
}

/** From a hypervisor's closed sockets to its end. */
const LAST_WORDS_MS = 500;

/** Spawns it; `exited` never rejects. Throws `machine_start_failed`. */
export async function spawnHypervisor(
  start: Omit<HypervisorStart, 'qmpPath' | 'wakes'>,
): Promise<Hypervisor> {
  const { argv, inherit, output, uid, group, netns, cgroup, limits } = start;
  makeCgroup(cgroup, limits);
  const child = spawnIn(netns, [...unprivileged(uid, group), ...argv], {
    stdio: ['ignore', output, output, ...inherit],
    cwd: '/',
    detached: true, // a machine outlives the host service
  });
  const exited = new Promise<WaitStatus>((resolve) => {
    child.once('error', () => resolve({ code: null, signal: null }));
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  if (child.pid === undefined) {
    const [error] = (await once(child, 'error').catch((thrown: unknown) => [thrown])) as [unknown];
    throw new PolydevError('machine_start_failed', `hypervisor: ${String(error)}`, { cause: error });
  }
  const { pid } = child;
  child.unref();
  // It may have ended already, which `exited` tells.
  const process = identify(pid) ?? { pid, startTicks: -1 };
  try {
    joinCgroup(cgroup, pid);
  } catch (error) {
    if (identify(pid) !== undefined) throw error;
  }
  return { process, exited };
}

/** Spawns it and waits until its guest runs. Throws `machine_start_failed`. */
export async function startHypervisor(start: HypervisorStart, signal: AbortSignal): Promise<Hypervisor> {
  const hypervisor = await spawnHypervisor(start);
  const ended = hypervisor.exited.then(({ code, signal: by }) => {
    throw new PolydevError('machine_start_failed', `hypervisor: ended with ${by ?? `code ${code}`}`);
  });
  ended.catch(() => undefined);
  const asked = (async () => {
    if (start.wakes !== undefined) await continueGuest(start.qmpPath, start.wakes.devices, signal);
    for (;;) {
      signal.throwIfAborted();
      using qmp = await Qmp.connect(start.qmpPath, 20_000);
      const status = (await qmp.execute('query-status')) as { status?: unknown };
      if (status.status === 'running') return;
      await sleep(50);
    }
  })();
  try {
    await Promise.race([asked, ended]);
  } catch (error) {
    // Its end often shows first as a broken connection; how it ended says more.
    await Promise.race([ended, sleep(LAST_WORDS_MS)]);
    throw error;
  }
  return hypervisor;
}
