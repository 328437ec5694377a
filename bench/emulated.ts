/**
 * Start of virtual machines that need KVM, in a computer that is emulated and has it (testkit/kvm-bench/). What is measured is real, its pace is
 * the emulation's: the rows say what starts, and what it takes of memory and disk; times only among each other.
 */
import { fileURLToPath } from 'node:url';
import type { Output } from '../cli/output.ts';
import type { Settings } from '../cli/settings.ts';
import { PolydevError } from '../protocol/errors.ts';
import { lackingForBench, runOuter } from '../testkit/kvm-bench/outer.ts';
import { ensureBenchParts } from '../testkit/kvm-bench/parts.ts';
import {
  measureVirtual,
  showVirtual,
  type VirtualBench,
  type VirtualDriver,
  type VirtualReport,
} from './virtual.ts';

const TIMEOUT_MS = 90 * 60_000;
/** The files of its machines are in it, too, and with Firecracker the memory of the template. */
const MEMORY_MIB = 10_240;
const REPORT = '/run/report.json';
/** As in the driver's contract there: what hardware does in a second takes the emulated one many. */
const SLOWDOWN = 10;

/** Measures one driver, here or in the emulated computer, and shows it. */
export async function benchVirtual(
  settings: Settings,
  { driver, runs, json, emulated }: { driver: VirtualDriver; runs: number; json: boolean; emulated: boolean },
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { firecracker, jailer } = settings;
  const here: VirtualBench = {
    driver,
    runs,
    config: { firecracker, jailer },
    warmUp: true,
  };
  const report = emulated
    ? await measureEmulated(settings, { driver, runs }, output, signal)
    : await measureVirtual(here, (state) => output.progress(state), signal);
  showVirtual(report, json, output);
}

/** Throws PolydevError when it does not come to its end. */
async function measureEmulated(
  settings: Settings,
  wanted: Pick<VirtualBench, 'driver' | 'runs'>,
  output: Output,
  signal: AbortSignal,
): Promise<VirtualReport> {
  const missing = lackingForBench();
  if (missing !== undefined) throw new PolydevError('bad_request', `the emulated computer needs ${missing}`);
  const { checkout, cacheDir, firecracker, jailer } = settings;
  const parts = await ensureBenchParts({ cacheDir, signal, log: (line) => output.say(line) });
  const config = { firecracker, jailer, slowdown: SLOWDOWN };
  const inside: VirtualBench = { ...wanted, config, warmUp: false };
  const argv = [
    process.execPath,
    fileURLToPath(new URL('inside.ts', import.meta.url)),
    JSON.stringify(inside),
    REPORT,
  ];
  const plan = {
    argv,
    cwd: checkout,
    env: { POLYDEV_CACHE: cacheDir },
    report: REPORT,
    timeoutMs: TIMEOUT_MS,
  };
  const onText = (text: string): void => void process.stderr.write(text);
  const { report, console, late } = await runOuter({
    parts,
    plan,
    memoryMiB: MEMORY_MIB,
    onText,
    signal,
  });
  if (report !== '') return JSON.parse(report) as VirtualReport;
  const why = late
    ? `no end after ${TIMEOUT_MS / 60_000} minutes`
    : 'the emulated computer ended without a report';
  throw new PolydevError('internal', why, { lines: console.trimEnd().split('\n').slice(-20) });
}
