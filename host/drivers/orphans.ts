/** What a driver takes back that nobody knows of any more: of a host service that was killed in the middle of something, and at its own end. */
import { existsSync } from 'node:fs';
import { MachineId } from '../../protocol/ids.ts';
import { cgroupChildren, cgroupOfInstance, cgroupProcesses, removeCgroup } from '../system/cgroups.ts';
import { listIfThere } from '../system/files.ts';
import type { Leases } from '../system/leases.ts';

/** Where traces of machines are, under their ids, and how a machine's are taken back. */
export interface Traces {
  instance: string;
  folders: readonly string[];
  /** Claims of folders below it that are gone are given back. */
  machinesFolder: string;
  idLeases: Leases;
  reclaim: (id: MachineId) => Promise<void>;
}

/** Takes back what belongs to no machine of `keep`. */
export async function takeBackOrphans(traces: Traces, keep: ReadonlySet<string>): Promise<void> {
  const { instance, folders, machinesFolder, idLeases, reclaim } = traces;
  const listed = await Promise.all(folders.map(listIfThere));
  const seen = new Set([...listed.flat(), ...cgroupChildren(cgroupOfInstance(instance))]);
  for (const name of seen) {
    const id = MachineId.safeParse(name);
    if (id.success && !keep.has(name)) await reclaim(id.data);
  }
  for (const { number, owner } of await idLeases.list()) {
    if (owner.startsWith(`${machinesFolder}/`) && !existsSync(owner)) await idLeases.release(number, owner);
  }
}

/** The instance's control groups, unless machines run in them. */
export async function takeBackCgroups(instance: string): Promise<void> {
  const cgroup = cgroupOfInstance(instance);
  if (cgroupProcesses(cgroup).length === 0) await removeCgroup(cgroup);
}
