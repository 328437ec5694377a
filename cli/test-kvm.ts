/** `./polydev test kvm`: the contract of drivers that need KVM, inside a computer that has it (testkit/kvm-bench/). */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { lackingForBench, runOuter } from '../testkit/kvm-bench/outer.ts';
import { ensureBenchParts } from '../testkit/kvm-bench/parts.ts';
import type { Output } from './output.ts';
import type { Settings } from './settings.ts';
import { type Tally, takeReport } from './test-report.ts';

/** A boot and a whole contract for each driver, at an emulated pace on a busy computer. */
const TIMEOUT_MS = 90 * 60_000;
const MEMORY_MIB = 5120;

export async function runKvm(
  settings: Settings,
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
  const { checkout, cacheDir, firecracker, jailer } = settings;
  if (firecracker === undefined) output.say('POLYDEV_FIRECRACKER is not set: QEMU only');
  const artifacts = path.join(checkout, '.artifacts');
  await mkdir(artifacts, { recursive: true });
  const parts = await ensureBenchParts({ cacheDir, signal, log: () => undefined });
  const inside = '/run/report.json';
  const outcome = await runOuter({
    parts,
    plan: {
      argv: [
        process.execPath,
        path.join(checkout, 'node_modules/.bin/vitest'),
        ...['run', '--project=kvm', '--no-color', '--reporter=verbose'],
        ...['--reporter=json', `--outputFile.json=${inside}`],
      ],
      cwd: checkout,
      env: {
        CI: '1',
        POLYDEV_CACHE: cacheDir,
        ...(firecracker === undefined ? {} : { POLYDEV_FIRECRACKER: firecracker }),
        ...(jailer === undefined ? {} : { POLYDEV_JAILER: jailer }),
      },
      report: inside,
      timeoutMs: TIMEOUT_MS,
    },
    memoryMiB: MEMORY_MIB,
    onText: (text) => process.stderr.write(text),
    signal,
  });
  await writeFile(path.join(artifacts, 'kvm-console.log'), outcome.console);
  const report = path.join(artifacts, 'kvm.json');
  await writeFile(report, outcome.report);
  if (signal.aborted) return;
  if (outcome.late) {
    tally.failed += 1;
    tally.failures.push(`kvm: no end after ${TIMEOUT_MS / 60_000} minutes; see .artifacts/kvm-console.log`);
  }
  await takeReport({ suite: 'kvm', file: report, checkout }, tally, output);
}
