/** Runs one container with runc: from a plan to a process, and away again by name. */
import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PolydevError } from '../../../protocol/errors.ts';
import { cgroupProcesses, removeCgroup, thawCgroup } from '../../system/cgroups.ts';
import { run } from '../../system/command.ts';
import { readIfThere } from '../../system/files.ts';
import {
  endProcess,
  identify,
  type ProcessIdentity,
  signalProcess,
  waitGone,
} from '../../system/processes.ts';
import { type ContainerPlan, containerSpec } from './spec.ts';

export interface ContainerPlace {
  /** Name of the container. */
  id: string;
  /** Folder of runc's own state, one per instance. */
  runcRoot: string;
  /** The machine's folder below /run. */
  runFolder: string;
  /** Where the runtime's log and specification are kept as evidence. */
  recordFolder: string;
  cgroup: string;
}

/** Files of a record folder. */
export const RUNTIME_FILES = { log: 'runtime.log', spec: 'runtime-spec.json' } as const;

export interface RunningContainer {
  process: ProcessIdentity;
  /** When the runtime had made the container, before its process began. */
  createdAt: Date;
}

const pidFile = (place: ContainerPlace): string => join(place.runFolder, 'pid');

/**
 * Creates and starts it. Standard output and error go to `output`; `inherit` become descriptors 3 and up. Throws
 * `machine_start_failed` with runc's own lines. removeContainer undoes it at any point.
 */
export async function startContainer(
  place: ContainerPlace,
  plan: ContainerPlan,
  io: { output: number; inherit: readonly number[] },
  signal: AbortSignal,
): Promise<RunningContainer> {
  const bundle = join(place.runFolder, 'bundle');
  const log = join(place.recordFolder, RUNTIME_FILES.log);
  const spec = containerSpec(plan);
  await mkdir(bundle, { recursive: true, mode: 0o700 });
  await rm(log, { force: true });
  await writeFile(join(bundle, 'config.json'), JSON.stringify(spec), { mode: 0o600 });
  await writeFile(join(place.recordFolder, RUNTIME_FILES.spec), JSON.stringify(spec, null, 2), {
    mode: 0o600,
  });
  try {
    await run(
      [
        ...['runc', '--root', place.runcRoot, '--log', log, '--log-format', 'json', 'run', '--detach'],
        ...[
          '--preserve-fds',
          String(io.inherit.length),
          '--pid-file',
          pidFile(place),
          '--bundle',
          bundle,
          place.id,
        ],
      ],
      { output: io.output, inherit: io.inherit, signal, timeoutMs: 30_000, failure: 'machine_start_failed' },
    );
  } catch (error) {
    const lines = runcMessages(await readIfThere(log));
    const reason = lines.at(-1) ?? (error instanceof Error ? error.message : String(error));
    throw new PolydevError('machine_start_failed', `runc: ${reason}`, { cause: error, lines });
  }
  const pid = Number(await readFile(pidFile(place), 'utf8'));
  const process = identify(pid) ?? { pid, startTicks: -1 };
  return { process, createdAt: statSync(pidFile(place)).mtime };
}

function runcMessages(log: string | undefined): string[] {
  return (log ?? '')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      try {
        const { level, msg } = JSON.parse(line) as { level?: unknown; msg?: unknown };
        return `${String(level)}: ${String(msg)}`;
      } catch {
        return line;
      }
    });
}

/** Asks the first process to end and waits for it. False when it still runs after `graceMs`. */
export async function askToEnd(process: ProcessIdentity, graceMs: number): Promise<boolean> {
  signalProcess(process, 'SIGTERM');
  return waitGone(process, graceMs);
}

/** Ends its processes and removes container and cgroups. Idempotent; needs nothing but the names. */
export async function removeContainer(place: ContainerPlace): Promise<void> {
  // The first process ends the whole pid namespace; killing it here is faster than runc's own polling.
  const pid = Number((await readIfThere(pidFile(place))) ?? Number.NaN);
  const inside = cgroupProcesses(place.cgroup);
  const first = inside.find((found) => found.pid === pid);
  if (first !== undefined) {
    signalProcess(first, 'SIGKILL');
    // One that is frozen dies when it thaws, before it runs.
    thawCgroup(place.cgroup);
    await waitGone(first, 5000);
  }
  thawCgroup(place.cgroup);
  // A start that was cut off may have left processes without a pid file.
  await Promise.all(cgroupProcesses(place.cgroup).map((found) => endProcess(found, 0)));
  if (existsSync(join(place.runcRoot, place.id))) {
    await run(['runc', '--root', place.runcRoot, 'delete', '--force', place.id]).catch(() =>
      rm(join(place.runcRoot, place.id), { recursive: true, force: true }),
    );
  }
  await removeCgroup(place.cgroup);
}
