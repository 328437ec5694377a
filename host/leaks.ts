/** Finds everything on this computer that belongs to an instance: what a full stop must have removed. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { hostTable, namespacePath, uplinkName } from './network/addresses.ts';
import { instanceNamespaces } from './network/network.ts';
import { cgroupFolders, cgroupOfInstance, cgroupProcesses } from './system/cgroups.ts';
import { run } from './system/command.ts';
import { listIfThere } from './system/files.ts';
import { idLeasesIn } from './system/ids.ts';
import { loopDevices } from './system/loops.ts';
import { findProcesses, processesInNetworkNamespace } from './system/processes.ts';
import { mountPoints } from './system/syscalls.ts';

export interface Leak {
  kind:
    | 'process'
    | 'mount'
    | 'namespace'
    | 'interface'
    | 'cgroup'
    | 'loop device'
    | 'nft table'
    | 'lease'
    | 'folder';
  name: string;
}

export interface AuditPlaces {
  instance: string;
  runDir: string;
  dataDir: string;
  sharedDir: string;
  /** The namespace that stands for the host's; tests only. */
  hostNetns?: string | undefined;
}

/**
 * Lists it; empty after a full stop, but for disks and evidence below `dataDir`, which stay on purpose. The process of
 * the host service itself is listed by its arguments when they name `runDir`.
 */
export async function audit(places: AuditPlaces): Promise<Leak[]> {
  const { instance, runDir, dataDir, sharedDir, hostNetns } = places;
  const leaks: Leak[] = [];
  const add = (kind: Leak['kind'], names: Iterable<string>): void => {
    for (const name of names) leaks.push({ kind, name });
  };
  const within = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

  const namespaces = await instanceNamespaces(instance);
  const processes = new Map(
    [
      ...cgroupProcesses(cgroupOfInstance(instance)),
      ...namespaces.flatMap((name) => processesInNetworkNamespace(namespacePath(name))),
      ...findProcesses((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${runDir}/`)),
    ].map(({ pid }) => [pid, commandOf(pid)] as const),
  );
  add(
    'process',
    [...processes].map(([pid, command]) => `${pid} ${command}`),
  );
  add(
    'mount',
    mountPoints()
      .map(({ target }) => target)
      .filter((target) => within(target, runDir) || within(target, dataDir)),
  );
  add(
    'loop device',
    loopDevices()
      .filter(({ file }) => within(file, runDir) || within(file, dataDir))
      .map(({ name, file }) => `${name} ${file}`),
  );
  add('namespace', namespaces);
  add('cgroup', cgroupFolders(cgroupOfInstance(instance)));
  const links = await run(['ip', '-j', 'link', 'show'], { netns: hostNetns });
  const names = z.array(z.object({ ifname: z.string() })).parse(JSON.parse(links));
  add(
    'interface',
    names.map(({ ifname }) => ifname).filter((name) => name === uplinkName(instance)),
  );
  const tables = await run(['nft', 'list', 'tables'], { netns: hostNetns });
  add(
    'nft table',
    tables.split('\n').filter((line) => line.endsWith(` ${hostTable(instance)}`)),
  );
  const leases = await idLeasesIn(sharedDir).list();
  add(
    'lease',
    leases.filter(({ owner }) => within(owner, runDir)).map(({ number, owner }) => `${number} ${owner}`),
  );
  const orphaned = leases.filter(({ owner }) => within(owner, dataDir) && !existsSync(owner));
  add(
    'lease',
    orphaned.map(({ number, owner }) => `${number} ${owner}`),
  );
  const forwarding = join(sharedDir, 'forwarding', `used-by-${instance}`);
  add(
    'folder',
    [runDir, forwarding].filter((path) => existsSync(path)),
  );
  // Of a template, or of a machine that was promised to nobody: each other one has its record.
  const machines = join(dataDir, 'machines');
  add(
    'folder',
    (await listIfThere(machines))
      .map((name) => join(machines, name))
      .filter((folder) => !existsSync(join(folder, 'record.json'))),
  );
  return leaks;
}

/** Long enough for a stranger's copy of a mount: it goes with the program that has it. */
const SETTLED_MS = 60_000;

/**
 * audit(), again until nothing is left but what no wait mends. The kernel gives a loop device back with the last mount of it,
 * and any program that started in a mount namespace of its own meanwhile (`unshare --mount`) has copies of all mounts until
 * it ends; only that is waited for, at most a minute.
 */
export async function auditSettled(places: AuditPlaces): Promise<Leak[]> {
  const end = performance.now() + SETTLED_MS;
  for (;;) {
    const leaks = await audit(places);
    if (performance.now() > end || !leaks.some(({ kind }) => kind === 'loop device')) return leaks;
    await sleep(250);
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '(gone)';
  }
}
