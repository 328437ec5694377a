/** `./polydev test`: installs what the tests need, runs every check and suite, ends with one summary line. */
import { chmod, glob, mkdir, mkdtemp, readlink, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { openImageStore } from '../host/images/store.ts';
import { VM_PACKAGES } from '../host/packages.ts';
import { PolydevError } from '../protocol/errors.ts';
import { ensureImage, ensureVm } from './image.ts';
import { formatDuration, type Output } from './output.ts';
import { ensurePackages, RUN_PACKAGES, TEST_PACKAGES } from './packages.ts';
import { type Settings, settingsPaths } from './settings.ts';
import { type KvmChoice, runKvm } from './test-kvm.ts';
import { machineTable } from './test-machines.ts';
import { firstLines, type Tally, takeReport } from './test-report.ts';
import { ensureWeb } from './web.ts';

const PARTS = ['check', 'unit', 'faults', 'crash', 'e2e'] as const;
/** Run only when asked for by name: `kvm` is slow, and `machines` repeats a part of `unit` for its table. */
const NAMED_PARTS = ['kvm', 'machines'] as const;
/** The suites that every driver passes. */
const CONTRACTS = ['contract', 'life', 'template'].map((name) => `host/drivers/${name}.test.ts`);
type Part = (typeof PARTS)[number] | (typeof NAMED_PARTS)[number];

/** Returns the exit code. A suite that ran no test at all counts as a failure. */
export async function test(
  settings: Settings,
  options: { parts: readonly string[]; install: boolean } & KvmChoice,
  output: Output,
  signal: AbortSignal,
): Promise<number> {
  const began = performance.now();
  const known: readonly Part[] = [...PARTS, ...NAMED_PARTS];
  const unknown = options.parts.filter((name) => !known.some((part) => part === name));
  if (unknown.length > 0)
    throw new PolydevError('bad_request', `there is no part "${unknown[0]}"; known: ${known.join(', ')}`);
  const named = options.parts.length > 0;
  const parts = named ? known.filter((part) => options.parts.includes(part)) : PARTS;

  if (parts.some((p) => p !== 'check')) {
    if (process.getuid?.() !== 0)
      throw new PolydevError('not_root', 'the tests start real machines, which needs root');
    // Debian's QEMU is there for x64 hosts only, and so is the kernel.
    const vm = process.arch === 'x64';
    const packages = [...RUN_PACKAGES, ...TEST_PACKAGES, ...(vm ? VM_PACKAGES : [])];
    await ensurePackages(packages, { install: options.install, output, signal });
    await ensureImage(settings, { output, signal });
    if (vm) await ensureVm(settings, { output, signal });
    await ensureWeb(settings, { output, signal });
  }

  await using cleanup = new AsyncDisposableStack();
  const codex = parts.includes('unit') ? await mountCodex(settings, cleanup) : undefined;
  const tally: Tally = { passed: 0, failed: 0, skipped: 0, failures: [] };
  for (const part of parts) {
    output.say(`\n── ${part} ──`);
    if (part === 'check') await runChecks(settings, tally, output, signal);
    else if (part === 'kvm') await runKvm(settings, options, tally, output, signal);
    else {
      await runSuite(settings, part, { codex, named }, tally, output, signal);
      if (part === 'machines') output.result(await machineTable(settings.checkout));
    }
    if (signal.aborted) break;
  }
  for (const failure of tally.failures) output.say(`\nFAILED ${failure}`);
  const word = tally.failed === 0 && !signal.aborted ? 'passed' : 'FAILED';
  output.say(`\n${word} after ${formatDuration(performance.now() - began)}`);
  output.result(`polydev: ${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
  return tally.failed === 0 && tally.passed > 0 && !signal.aborted ? 0 : 1;
}

const bin = (settings: Settings, name: string) => path.join(settings.checkout, 'node_modules', '.bin', name);

async function runChecks(
  settings: Settings,
  tally: Tally,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const checks: [string, string[]][] = [
    ['lint and format', [bin(settings, 'biome'), 'ci', '--error-on-warnings', '.']],
    ['types', [bin(settings, 'tsc'), '-p', '.']],
    ['dead code', [bin(settings, 'knip'), '--no-progress']],
  ];
  for (const [name, [program = '', ...args]] of checks) {
    const result = await execa(program, args, {
      cwd: settings.checkout,
      reject: false,
      all: true,
      timeout: 600_000,
      cancelSignal: signal,
    });
    if (result.failed) {
      tally.failed += 1;
      output.say(`FAILED ${name}\n${result.all}`);
      tally.failures.push(`${name}\n${firstLines(result.all)}`);
    } else {
      tally.passed += 1;
      output.say(`passed ${name}`);
    }
  }
}

/** The genuine CLI out of the golden image, for the tests that run it outside a machine. */
async function mountCodex(settings: Settings, cleanup: AsyncDisposableStack): Promise<string | undefined> {
  const runDir = await mkdtemp(path.join(os.tmpdir(), 'polydev-test-image-'));
  // Some of these tests run it as another user.
  await chmod(runDir, 0o755);
  cleanup.defer(() => rm(runDir, { recursive: true }));
  const store = openImageStore(settingsPaths(settings).images, { runDir });
  const image = await store.current();
  if (image === undefined) return undefined;
  cleanup.defer(() => store.unmountAll());
  const pattern = 'opt/polydev/clis/node_modules/@openai/codex-linux-*/vendor/*/bin/codex';
  for (const layer of (await store.mount(image.id)).layers) {
    for await (const found of glob(pattern, { cwd: layer })) return path.join(layer, found);
  }
  return undefined;
}

async function runSuite(
  settings: Settings,
  suite: string,
  /** `named`: only this part was asked for, and it may take its time. */
  how: { codex: string | undefined; named: boolean },
  tally: Tally,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const artifacts = path.join(settings.checkout, '.artifacts');
  const report = path.join(artifacts, `${suite}.json`);
  await mkdir(artifacts, { recursive: true });
  await rm(report, { force: true });
  // In a network namespace with nothing but loopback: no test can send anything anywhere.
  // Faults are also injected by mounting over parts of the host: nobody else may see those mounts.
  const mounts = suite === 'faults' ? ['--mount', '--propagation', 'private'] : [];
  const sealed = [...mounts, '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'];
  const vitest = [
    bin(settings, 'vitest'),
    'run',
    // The table of machines is made of the drivers' contract alone.
    ...(suite === 'machines' ? ['--project=unit', ...CONTRACTS] : [`--project=${suite}`]),
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ];
  await execa('unshare', [...sealed, ...vitest], {
    cwd: settings.checkout,
    reject: false,
    stdio: ['ignore', process.stderr, process.stderr],
    timeout: 14_400_000,
    cancelSignal: signal,
    // The tests find the golden image where this command put it, and nothing of the caller's own installation.
    env: {
      POLYDEV_CACHE: settings.cacheDir,
      POLYDEV_OUTER_MOUNTS: await readlink('/proc/self/ns/mnt'),
      ...(how.codex === undefined ? {} : { POLYDEV_CODEX: how.codex }),
      ...(suite === 'crash' && how.named ? { POLYDEV_CRASH: 'all' } : {}),
      ...(suite === 'machines' ? { POLYDEV_FULL_CONTRACT: '1' } : {}),
    },
  });
  await takeReport({ suite, file: report, checkout: settings.checkout }, tally, output);
}
