/** `./polydev test kvm`: the contract of drivers that need KVM, inside a computer that has it (testkit/kvm-bench/). */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { lackingForBench, runOuter } from '../testkit/kvm-bench/outer.ts';
import { type BenchParts, ensureBenchParts } from '../testkit/kvm-bench/parts.ts';
import type { Output } from './output.ts';
import type { Settings } from './settings.ts';
import { type Tally, takeReport } from './test-report.ts';

/** Those whose contract is run there. */
export const KVM_DRIVERS = ['firecracker', 'qemu'] as const;
type KvmDriver = (typeof KVM_DRIVERS)[number];

/** What of it is run; absent: all. */
export interface KvmChoice {
  driver?: KvmDriver;
  /** Only tests whose whole name has this, a regular expression. */
  name?: string;
}

/** What the reports of a driver's run are called. */
export const kvmSuite = (driver: KvmDriver): string => `kvm-${driver}`;

/** A boot and a driver's whole contract, at an emulated pace on a busy computer. */
const TIMEOUT_MS = 60 * 60_000;
const MEMORY_MIB = 5120;
/**
 * Seen with QEMU 7.2: its emulation of virtualization can break the emulated computer's kernel (with nested paging, which the
 * bench does without now). That says nothing about a driver, so it is done again.
 */
const TRIES = 3;
const PANIC = /^.*Kernel panic - not syncing: .*$/m;

const INSIDE = '/run/report.json';

export async function runKvm(
  settings: Settings,
  choice: KvmChoice,
  tally: Tally,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const missing = lackingForBench();
  if (missing !== undefined) {
    tally.failed += 1;
    tally.failures.push(`kvm: the bench needs ${missing}`);
    return;
  }
  const { checkout, cacheDir, firecracker } = settings;
  await mkdir(path.join(checkout, '.artifacts'), { recursive: true });
  const parts = await ensureBenchParts({ cacheDir, signal, log: () => undefined });
  const drivers = KVM_DRIVERS.filter((driver) => choice.driver === undefined || choice.driver === driver);
  for (const driver of drivers) {
    if (driver === 'firecracker' && firecracker === undefined) {
      tally.skipped += 1;
      output.say('skipped: firecracker (needs POLYDEV_FIRECRACKER, the path of its binary)');
      continue;
    }
    await runContract(settings, { driver, name: choice.name }, parts, { tally, output, signal });
    if (signal.aborted) return;
  }
}

/** A computer of its own for each driver: what breaks one does not end the other's tests. */
async function runContract(
  settings: Settings,
  { driver, name }: { driver: KvmDriver; name: string | undefined },
  parts: BenchParts,
  to: { tally: Tally; output: Output; signal: AbortSignal },
): Promise<void> {
  const { checkout, cacheDir, firecracker, jailer } = settings;
  const { tally, output, signal } = to;
  const suite = kvmSuite(driver);
  const artifact = (end: string): string => path.join(checkout, '.artifacts', `${suite}${end}`);
  const plan = {
    argv: [
      process.execPath,
      path.join(checkout, 'node_modules/.bin/vitest'),
      ...['run', '--project=kvm', '--no-color', '--reporter=verbose'],
      ...['--reporter=json', `--outputFile.json=${INSIDE}`],
      ...(name === undefined ? [] : ['-t', name]),
    ],
    cwd: checkout,
    env: {
      CI: '1',
      POLYDEV_CACHE: cacheDir,
      POLYDEV_BENCH_DRIVER: driver,
      ...(firecracker === undefined ? {} : { POLYDEV_FIRECRACKER: firecracker }),
      ...(jailer === undefined ? {} : { POLYDEV_JAILER: jailer }),
    },
    report: INSIDE,
    timeoutMs: TIMEOUT_MS,
  };
  const onText = (text: string): void => void process.stderr.write(text);
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const outcome = await runOuter({
      parts,
      plan,
      memoryMiB: MEMORY_MIB,
      onText,
      signal,
    });
    await writeFile(artifact('-console.log'), outcome.console);
    await writeFile(artifact('.json'), outcome.report);
    if (signal.aborted) return;
    if (outcome.late) {
      tally.failed += 1;
      tally.failures.push(
        `${suite}: no end after ${TIMEOUT_MS / 60_000} minutes; see ${artifact('-console.log')}`,
      );
    }
    const panic = outcome.report === '' ? PANIC.exec(outcome.console)?.[0] : undefined;
    if (panic === undefined || attempt === TRIES) break;
    output.say(`the emulated computer broke, try ${attempt} of ${TRIES}: ${panic.trim()}`);
  }
  await takeReport({ suite, file: artifact('.json'), checkout }, tally, output);
}
