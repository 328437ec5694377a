/** Tries the smallest machine: everything a real one needs of the kernel, with `true` as the guest. */
import { closeSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { namespacePath, namespacePrefix } from '../../network/addresses.ts';
import { removeNamespace } from '../../network/router.ts';
import { cgroupOfInstance } from '../../system/cgroups.ts';
import { run } from '../../system/command.ts';
import type { ExitWatch } from '../../system/exit.ts';
import { removeTree } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import type { Leases } from '../../system/leases.ts';
import { closeUserNamespace, openUserNamespace } from '../../system/userns.ts';
import type { DriverReport } from '../driver.ts';
import { type ContainerPlace, removeContainer, startContainer } from './container.ts';
import { closeDisk, openDisk } from './disk.ts';
import type { ImageSource } from './driver.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';

const DEADLINE_MS = 5000;
const DISK_MIB = 16;
const LIMITS = { cpus: 1, memoryMiB: 64, pids: 32 };

export interface ProbeParts {
  instance: string;
  runFolder: string;
  images: ImageSource;
  idLeases: Leases;
  exits: ExitWatch;
}

/** Never throws: what fails is the report. */
export async function probe(parts: ProbeParts, signal: AbortSignal): Promise<DriverReport> {
  const begin = performance.now();
  const problems: string[] = [];
  let step = 'preparation';
  const at = (name: string): void => {
    step = name;
  };
  try {
    await trial(parts, at, AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]));
  } catch (error) {
    problems.push(`${step}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return {
    driver: 'namespace',
    ok: problems.length === 0,
    problems,
    ms: Math.round(performance.now() - begin),
  };
}

async function trial(parts: ProbeParts, at: (step: string) => void, signal: AbortSignal): Promise<void> {
  const { instance, runFolder, images, idLeases, exits } = parts;
  const folder = join(runFolder, 'probe');
  const place: ContainerPlace = {
    id: 'probe',
    runcRoot: join(runFolder, 'runc'),
    runFolder: folder,
    recordFolder: folder,
    cgroup: `${cgroupOfInstance(instance)}/probe`,
  };
  const netns = `${namespacePrefix(instance)}probe`;
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTree(folder));
  await removeContainer(place);
  await unmountRootfs(folder);
  await closeDisk(folder, { remove: true });
  await removeNamespace(netns);
  await mkdir(join(folder, 'config'), { recursive: true, mode: 0o711 });

  at('ids');
  const firstId = await claimIds(idLeases, folder, undefined);
  undo.defer(() => releaseIds(idLeases, folder));
  at('user namespace');
  const userNamespace = await openUserNamespace(firstId, signal);
  undo.defer(() => closeUserNamespace(userNamespace));
  at('network namespace');
  await run(['ip', 'netns', 'add', netns], { signal });
  undo.defer(() => removeNamespace(netns));
  at('image layers');
  const image = await images.current();
  // Without an image the host's own root is the lower layer: the kernel's part is the same.
  const layers = image === undefined ? ['/'] : (await images.mount(image.id)).layers;
  at('private disk');
  undo.defer(() => closeDisk(folder, { remove: true }));
  const diskFolder = await openDisk({ folder, sizeMiB: DISK_MIB, firstId, volatile: true }, signal);
  at('idmapped overlay');
  undo.defer(() => unmountRootfs(folder));
  const rootfs = mountRootfs({
    layers,
    diskFolder,
    runFolder: folder,
    userNamespace,
    firstId,
    volatile: true,
  });
  at('runc');
  undo.defer(() => removeContainer(place));
  const output = openSync('/dev/null', 'w');
  undo.defer(() => closeSync(output));
  const container = await startContainer(
    place,
    {
      rootfs,
      argv: ['/usr/bin/env', 'true'],
      hostname: 'probe',
      limits: LIMITS,
      firstId,
      netns: namespacePath(netns),
      cgroup: place.cgroup,
      configFolder: join(folder, 'config'),
    },
    { output, inherit: [] },
    signal,
  );
  at('guest');
  const { code, signal: killed } = await exits.watch(container.process);
  if (code !== 0) throw new Error(`the smallest guest ended with ${killed ?? `code ${code}`}`);
}
