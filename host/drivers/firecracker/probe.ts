/** Tries the smallest guest in a jail of its own: kernel and first program load the drivers, say so on the console, and end. */
import { closeSync, openSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { namespacePath, namespacePrefix } from '../../network/addresses.ts';
import { removeNamespace } from '../../network/router.ts';
import { cgroupOfInstance, cgroupProcesses, cgroupVersion, removeCgroup } from '../../system/cgroups.ts';
import { run } from '../../system/command.ts';
import { removeTree } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import type { Leases } from '../../system/leases.ts';
import { endProcess } from '../../system/processes.ts';
import { unmount } from '../../system/syscalls.ts';
import type { DriverReport } from '../driver.ts';
import { KVM_UNUSABLE, openKvm } from '../vm/kvm.ts';
import { baseCalls, kernelArguments, START } from './args.ts';
import type { Binaries } from './binaries.ts';
import { startHypervisor, whileItRuns } from './hypervisor.ts';
import { fillJail, IN_JAIL, jailId, jailRoot } from './jail.ts';

const DEADLINE_MS = 5000;
const MEMORY_MIB = 128;
const OVERHEAD_MIB = 128;
const MIB = 1024 * 1024;

export interface ProbeParts {
  instance: string;
  /** Folder for the trial, removed afterwards; on a file system that allows devices and programs. */
  folder: string;
  slowdown: number;
  idLeases: Leases;
  binaries: (signal: AbortSignal) => Promise<Binaries>;
  /** Paths of the uncompressed kernel and the initramfs; undefined when they were not made. */
  parts: () => Promise<{ kernel: string; initrd: string } | undefined>;
}

/** Never throws: what fails is the report. */
export async function probe(options: ProbeParts, signal: AbortSignal): Promise<DriverReport> {
  const begin = performance.now();
  const problems: string[] = [];
  let step = 'preparation';
  const late = AbortSignal.timeout(DEADLINE_MS * options.slowdown);
  const limit = AbortSignal.any([signal, late]);
  try {
    await trial(options, limit, (name) => {
      step = name;
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const text = late.aborted ? `not done after ${DEADLINE_MS * options.slowdown} ms` : why;
    problems.push(`firecracker: ${step}: ${text.replace(/^firecracker: /, '')}`);
  }
  return {
    driver: 'firecracker',
    ok: problems.length === 0,
    problems,
    ms: Math.round(performance.now() - begin),
  };
}

async function trial(
  { instance, folder, slowdown, idLeases, binaries, parts }: ProbeParts,
  signal: AbortSignal,
  at: (step: string) => void,
): Promise<void> {
  at('programs');
  const programs = await binaries(signal);
  at('kernel and initramfs');
  const found = await parts();
  if (found === undefined) throw new Error('they are not there: ./polydev image build --vm makes them');
  at('KVM');
  openKvm();

  const cgroup = `${cgroupOfInstance(instance)}/probe`;
  const netns = `${namespacePrefix(instance)}probe`;
  const id = jailId('probe');
  const root = jailRoot(join(folder, 'jail'), programs.firecracker, id);
  const clear = async (): Promise<void> => {
    await Promise.all(cgroupProcesses(cgroup).map((left) => endProcess(left, 0)));
    await removeCgroup(cgroup);
    await removeNamespace(netns);
    unmount(root);
    await removeTree(folder);
  };
  await clear();
  await using undo = new AsyncDisposableStack();
  undo.defer(clear);
  await mkdir(folder, { recursive: true, mode: 0o711 });
  at('ids');
  const uid = await claimIds(idLeases, folder, undefined);
  undo.defer(() => releaseIds(idLeases, folder));
  at('network namespace');
  await run(['ip', 'netns', 'add', netns], { signal });
  at('jail');
  const nothing = Buffer.alloc(0);
  undo.use(
    await fillJail(root, uid, {
      shared: { [IN_JAIL.kernel]: found.kernel, [IN_JAIL.initrd]: found.initrd },
      owned: {},
      made: { [IN_JAIL.log]: nothing, [IN_JAIL.metrics]: nothing },
    }),
  );
  const log = join(folder, 'console');
  const output = openSync(log, 'a', 0o600);
  undo.defer(() => closeSync(output));
  const said = async (): Promise<string> => (await readFile(log, 'utf8')).trim();
  at('hypervisor');
  const plan = {
    ...programs,
    ...{ id, uid, base: join(folder, 'jail'), netns: namespacePath(netns), cgroup },
    cgroupVersion: cgroupVersion(),
    limits: { memoryBytes: (MEMORY_MIB + OVERHEAD_MIB) * MIB, cpus: 1, pids: 64 },
  };
  const words = async (error: unknown): Promise<never> => {
    const last = (await said()).split('\n').at(-1) ?? '';
    throw new Error(
      `${error instanceof Error ? error.message : String(error)}${last === '' ? '' : `: ${last}`}`,
    );
  };
  const hypervisor = await startHypervisor({ plan, root, output, slowdown }, signal).catch(words);
  const calls = [...baseCalls(1, MEMORY_MIB, kernelArguments(['polydev.probe'])), START];
  for (const call of calls) await whileItRuns(hypervisor, hypervisor.api.call(call)).catch(words);
  // From here on nothing but the guest itself is missing.
  at(KVM_UNUSABLE);
  await Promise.race([
    hypervisor.exited,
    new Promise((resolve) => {
      signal.addEventListener('abort', resolve, { once: true });
    }),
  ]);
  const text = await said();
  if (text.includes('polydev-init: probe passed')) return;
  signal.throwIfAborted();
  throw new Error(`it ended after: ${text.split('\n').at(-1) ?? 'nothing'}`);
}
