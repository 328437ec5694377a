/** Control groups, version 1 (one tree per controller) and version 2 (one tree): what the runtime does not tell. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify, type ProcessIdentity } from './processes.ts';

const ROOT = '/sys/fs/cgroup';

/** Which version limits memory, processors and processes here. */
export const cgroupVersion = (): 1 | 2 => (existsSync(join(ROOT, 'cgroup.controllers')) ? 2 : 1);

export const cgroupOfInstance = (instance: string): string => `/polydev-${instance}`;

/** The folders that hierarchies have for a path; those that exist. */
export function cgroupFolders(path: string): string[] {
  const trees = cgroupVersion() === 2 ? [ROOT] : readdirSync(ROOT).map((name) => join(ROOT, name));
  return trees.map((tree) => join(tree, path)).filter((folder) => existsSync(folder));
}

const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

/** Whether the out-of-memory killer struck below this path (memory.oom_control in v1, memory.events in v2). */
export function oomKilled(path: string): boolean {
  return cgroupFolders(path).some((folder) =>
    [join(folder, 'memory.oom_control'), join(folder, 'memory.events')].some((file) =>
      /^oom_kill [1-9]/m.test(read(file)),
    ),
  );
}

const below = (folder: string): string[] => [
  ...readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => below(join(folder, entry.name))),
  folder,
];

/** Processes in it, children included. */
export function cgroupProcesses(path: string): ProcessIdentity[] {
  const pids = cgroupFolders(path)
    .flatMap(below)
    .flatMap((folder) => read(join(folder, 'cgroup.procs')).split('\n'))
    .filter((line) => line !== '')
    .map(Number);
  return [...new Set(pids)].map(identify).filter((found) => found !== undefined);
}

/** Names directly below a path, in any hierarchy. */
export function cgroupChildren(path: string): string[] {
  const names = cgroupFolders(path).flatMap((folder) =>
    readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name),
  );
  return [...new Set(names)];
}

/** Removes it, its processes being gone. The kernel needs a moment after the last one. */
export async function removeCgroup(path: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      for (const folder of cgroupFolders(path).flatMap(below)) rmdirSync(folder);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      if (attempt >= 100) throw error;
      await sleep(20);
    }
  }
}

export interface CgroupLimits {
  memoryBytes: number;
  /** Cores. */
  cpus: number;
  /** Processes and threads. */
  pids: number;
}

const CPU_PERIOD_US = 100_000;

/** Makes it with its limits, swap included in the memory. A container runtime does this itself for its containers. */
export function makeCgroup(path: string, limits: CgroupLimits): void {
  const { memoryBytes, cpus, pids } = limits;
  const quota = Math.round(cpus * CPU_PERIOD_US);
  if (cgroupVersion() === 2) {
    // Version 2: each folder above has to pass the controllers on.
    let folder = ROOT;
    for (const name of path.split('/').filter(Boolean)) {
      writeFileSync(join(folder, 'cgroup.subtree_control'), '+memory +cpu +pids');
      folder = join(folder, name);
      mkdirSync(folder, { recursive: true });
    }
    writeFileSync(join(folder, 'memory.max'), String(memoryBytes));
    if (existsSync(join(folder, 'memory.swap.max'))) writeFileSync(join(folder, 'memory.swap.max'), '0');
    writeFileSync(join(folder, 'cpu.max'), `${quota} ${CPU_PERIOD_US}`);
    writeFileSync(join(folder, 'pids.max'), String(pids));
    return;
  }
  const set = (controller: string, values: readonly (readonly [string, number])[]): void => {
    const folder = join(ROOT, controller, path);
    mkdirSync(folder, { recursive: true });
    for (const [file, value] of values) {
      // Swap accounting may be off.
      if (file.includes('memsw') && !existsSync(join(folder, file))) continue;
      writeFileSync(join(folder, file), String(value));
    }
  };
  set('memory', [
    ['memory.limit_in_bytes', memoryBytes],
    ['memory.memsw.limit_in_bytes', memoryBytes],
  ]);
  set('cpu', [
    ['cpu.cfs_period_us', CPU_PERIOD_US],
    ['cpu.cfs_quota_us', quota],
  ]);
  set('pids', [['pids.max', pids]]);
}

/** Moves a process with all its threads into it, in every hierarchy that has it. */
export function joinCgroup(path: string, pid: number): void {
  for (const folder of cgroupFolders(path)) writeFileSync(join(folder, 'cgroup.procs'), String(pid));
}

const FREEZE_TIMEOUT_MS = 10_000;

/** The freezer of a path: version 2 has one in every group, version 1 in a tree of its own. */
function freezerOf(
  path: string,
): { file: string; frozen: string; thawed: string; isFrozen: () => boolean } | undefined {
  for (const folder of cgroupFolders(path)) {
    const v2 = join(folder, 'cgroup.freeze');
    if (existsSync(v2)) {
      const isFrozen = (): boolean => /^frozen 1$/m.test(read(join(folder, 'cgroup.events')));
      return { file: v2, frozen: '1', thawed: '0', isFrozen };
    }
    const v1 = join(folder, 'freezer.state');
    if (existsSync(v1)) {
      return { file: v1, frozen: 'FROZEN', thawed: 'THAWED', isFrozen: () => read(v1).trim() === 'FROZEN' };
    }
  }
  return undefined;
}

/** Whether everything in it stands still. */
export const isFrozen = (path: string): boolean => freezerOf(path)?.isFrozen() ?? false;

/**
 * Lets every process in it stand still, whatever it does, until thawCgroup.
 * @throws when there is no freezer, or a process cannot be stopped in time; it goes on then
 */
export async function freezeCgroup(path: string, signal: AbortSignal): Promise<void> {
  const freezer = freezerOf(path);
  if (freezer === undefined) throw new Error('this computer has no freezer for control groups');
  const end = performance.now() + FREEZE_TIMEOUT_MS;
  writeFileSync(freezer.file, freezer.frozen);
  while (!freezer.isFrozen()) {
    if (signal.aborted || performance.now() > end) {
      writeFileSync(freezer.file, freezer.thawed);
      throw new Error('a process does not stand still');
    }
    await sleep(10);
    // Version 1 stays at FREEZING when a process forked in between, until it is told again.
    writeFileSync(freezer.file, freezer.frozen);
  }
}

/** Lets it go on. Also where it never stood still, or is gone. */
export function thawCgroup(path: string): void {
  const freezer = freezerOf(path);
  if (freezer !== undefined) writeFileSync(freezer.file, freezer.thawed);
}

/** Gives back what its processes can do without: the page cache, and with swap the rest. As far as the kernel does it. */
export async function reclaimMemory(path: string): Promise<void> {
  for (const folder of cgroupFolders(path)) {
    const v2 = join(folder, 'memory.reclaim');
    const v1 = join(folder, 'memory.force_empty');
    // Both may take a while: not on the main thread. The kernel answers EAGAIN when less could be had.
    if (existsSync(v2)) await writeFile(v2, read(join(folder, 'memory.current'))).catch(() => undefined);
    else if (existsSync(v1)) await writeFile(v1, '0').catch(() => undefined);
  }
}
