/** Starts one Firecracker in its jail: the jailer gives it its user, root folder, namespace and control group, and becomes it. */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../../protocol/errors.ts';
import { spawnIn } from '../../system/command.ts';
import { identify, type ProcessIdentity } from '../../system/processes.ts';
import type { WaitStatus } from '../../system/syscalls.ts';
import { FirecrackerApi } from './api.ts';
import { type JailPlan, jailerArguments } from './args.ts';
import { IN_JAIL } from './jail.ts';

export interface Hypervisor {
  process: ProcessIdentity;
  exited: Promise<WaitStatus>;
  api: FirecrackerApi;
}

const SOCKET_TIMEOUT_MS = 5000;
const LAST_ANSWER_MS = 500;

/**
 * Spawns it and waits until it answers. `root`: its jail, already filled; `output`: descriptor for what it and its guest's
 * serial port say. Throws `machine_start_failed`.
 */
export async function startHypervisor(
  start: { plan: JailPlan; root: string; output: number; slowdown: number },
  signal: AbortSignal,
): Promise<Hypervisor> {
  const { plan, root, output, slowdown } = start;
  const child = spawnIn(undefined, jailerArguments(plan), {
    stdio: ['ignore', output, output],
    cwd: '/',
    detached: true, // a machine outlives the host service
  });
  const exited = new Promise<WaitStatus>((resolve) => {
    child.once('error', () => resolve({ code: null, signal: null }));
    child.once('exit', (code, by) => resolve({ code, signal: by }));
  });
  if (child.pid === undefined) {
    const [error] = (await once(child, 'error').catch((thrown: unknown) => [thrown])) as [unknown];
    throw new PolydevError('machine_start_failed', `jailer: ${String(error)}`, { cause: error });
  }
  const { pid } = child;
  child.unref();
  const hypervisor: Hypervisor = {
    // It may have ended already, which `exited` tells.
    process: identify(pid) ?? { pid, startTicks: -1 },
    exited,
    api: new FirecrackerApi(join(root, IN_JAIL.api), slowdown),
  };
  await whileItRuns(hypervisor, answering(hypervisor.api, join(root, IN_JAIL.api), slowdown, signal));
  return hypervisor;
}

async function answering(
  api: FirecrackerApi,
  socket: string,
  slowdown: number,
  signal: AbortSignal,
): Promise<void> {
  const end = performance.now() + SOCKET_TIMEOUT_MS * slowdown;
  while (!existsSync(socket)) {
    if (performance.now() > end) {
      throw new PolydevError('machine_start_failed', 'Firecracker does not open its control socket');
    }
    await sleep(10, undefined, { signal });
  }
  await api.describe();
}

/** `work`, or `machine_start_failed` as soon as the hypervisor ends; one that ends over a call has answered it before. */
export async function whileItRuns<T>(hypervisor: Hypervisor, work: Promise<T>): Promise<T> {
  const ended = hypervisor.exited.then(async ({ code, signal: by }): Promise<T> => {
    const error = new PolydevError('machine_start_failed', `Firecracker: ended with ${by ?? `code ${code}`}`);
    return Promise.race([work, sleep(LAST_ANSWER_MS).then(() => Promise.reject(error))]);
  });
  ended.catch(() => undefined);
  work.catch(() => undefined);
  return Promise.race([work, ended]);
}
