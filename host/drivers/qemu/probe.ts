/** Tries the smallest guest: kernel and first program load the drivers, say so on the console, and end. */
import { closeSync, openSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { namespacePath, namespacePrefix } from '../../network/addresses.ts';
import { removeNamespace } from '../../network/router.ts';
import { cgroupOfInstance, cgroupProcesses, removeCgroup } from '../../system/cgroups.ts';
import { run } from '../../system/command.ts';
import { removeTree } from '../../system/files.ts';
import { claimIds, releaseIds } from '../../system/ids.ts';
import type { Leases } from '../../system/leases.ts';
import { endProcess } from '../../system/processes.ts';
import type { DriverReport } from '../driver.ts';
import { timerIn } from '../vm/boot-watch.ts';
import { KVM_UNUSABLE, kvmGroup, kvmRefusal, openKvm } from '../vm/kvm.ts';
import { type Accelerator, baseArguments, kernelArguments, TRANSLATION_MIB } from './args.ts';
import { spawnHypervisor } from './hypervisor.ts';
import { isTimerRight, RIGHT_MHZ, STARTS } from './restart.ts';

/** Software emulation on a busy host needs several seconds where hardware needs a part of one. */
const DEADLINE_MS: Readonly<Record<Accelerator, number>> = { tcg: 30_000, kvm: 5000 };
const MEMORY_MIB = 128;
const POLL_MS = 100;
const MIB = 1024 * 1024;

export interface ProbeParts {
  instance: string;
  runFolder: string;
  accelerator: Accelerator;
  /** Of hardware virtualization on this computer; 1 but where it is emulated. */
  slowdown: number;
  idLeases: Leases;
  /** Paths of kernel and initramfs; undefined when they were not made. */
  parts: () => Promise<{ kernel: string; initrd: string } | undefined>;
}

/** Never throws: what fails is the report. */
export async function probe(options: ProbeParts, signal: AbortSignal): Promise<DriverReport> {
  const begin = performance.now();
  const problems: string[] = [];
  let step = 'preparation';
  const timeoutMs = DEADLINE_MS[options.accelerator] * (options.accelerator === 'kvm' ? options.slowdown : 1);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const at = (name: string): void => {
    step = name;
  };
  try {
    for (let start = 1; (await trial(options, limit, at)) === 'timer wrong'; start++) {
      if (start >= STARTS) throw new Error(`its kernel measured its timer wrong in ${STARTS} starts`);
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const text = limit.aborted ? `not done after ${timeoutMs} ms` : why;
    if (limit.aborted && step === 'smallest guest' && options.accelerator === 'kvm') step = KVM_UNUSABLE;
    problems.push(`qemu (${options.accelerator}): ${step}: ${text}`);
  }
  return { driver: 'qemu', ok: problems.length === 0, problems, ms: Math.round(performance.now() - begin) };
}

async function trial(
  { instance, runFolder, accelerator, idLeases, parts }: ProbeParts,
  signal: AbortSignal,
  at: (step: string) => void,
): Promise<'passed' | 'timer wrong'> {
  const folder = join(runFolder, 'probe');
  const cgroup = `${cgroupOfInstance(instance)}/probe`;
  const netns = `${namespacePrefix(instance)}probe`;
  const clear = async (): Promise<void> => {
    await Promise.all(cgroupProcesses(cgroup).map((found) => endProcess(found, 0)));
    await removeCgroup(cgroup);
    await removeNamespace(netns);
    await removeTree(folder);
  };
  await clear();
  await using undo = new AsyncDisposableStack();
  undo.defer(clear);
  at('kernel and initramfs');
  const found = await parts();
  if (found === undefined) throw new Error('they are not there: ./polydev image build --vm makes them');
  if (accelerator === 'kvm') {
    at('KVM');
    openKvm();
  }
  await mkdir(folder, { recursive: true, mode: 0o711 });
  at('ids');
  const uid = await claimIds(idLeases, folder, undefined);
  undo.defer(() => releaseIds(idLeases, folder));
  at('network namespace');
  await run(['ip', 'netns', 'add', netns], { signal });

  const opened: number[] = [];
  undo.defer(() => opened.forEach(closeSync));
  const open = (path: string, flags: string): number => {
    const fd = openSync(path, flags, 0o600);
    opened.push(fd);
    return fd;
  };
  const log = join(folder, 'log');
  const inherit = [open(found.kernel, 'r'), open(found.initrd, 'r')];
  at('hypervisor');
  const hypervisor = await spawnHypervisor({
    argv: [
      ...baseArguments(accelerator, 1, MEMORY_MIB),
      ...['-kernel', '/dev/fd/3', '-initrd', '/dev/fd/4'],
      ...['-append', kernelArguments(accelerator, ['polydev.probe'])],
      ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ],
    inherit,
    output: open(log, 'a'),
    uid,
    group: accelerator === 'kvm' ? kvmGroup() : undefined,
    netns: namespacePath(netns),
    cgroup,
    limits: { memoryBytes: (MEMORY_MIB + TRANSLATION_MIB + 128) * MIB, cpus: 1, pids: 64 },
  });
  at('smallest guest');
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  void hypervisor.exited.then(() => over.abort());
  let said = '';
  while (!either.aborted) {
    await sleep(POLL_MS, undefined, { signal: either }).catch(() => undefined);
    said = await readFile(log, 'utf8');
    // With KVM the kernel does not say it.
    const wrong = said.split('\n').some((line) => !isTimerRight(timerIn(line) ?? RIGHT_MHZ));
    if (wrong) return 'timer wrong';
  }
  if (said.includes('polydev-init: probe passed')) return 'passed';
  signal.throwIfAborted();
  const refusal = accelerator === 'kvm' ? kvmRefusal(said) : undefined;
  if (refusal !== undefined) at(refusal === 'unusable' ? KVM_UNUSABLE : `KVM: ${refusal}`);
  throw new Error(`it ended after: ${said.trim().split('\n').at(-1) ?? 'nothing'}`);
}
