/**
 * Start of virtual machines, booted and as copies of one that has booted, side by side on a host service of its own. Only when asked
 * for: where processors are emulated, a boot takes minutes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Output, table } from '../cli/output.ts';
import { PolydevError } from '../protocol/errors.ts';
import type { Checkpoint, MachineKind } from '../protocol/machine.ts';
import { HostProcess } from '../testkit/contracts/host-process.ts';
import { diskMiBOf } from './disk.ts';
import { memoryOf } from './memory.ts';
import { type Row, row } from './row.ts';

/** A painted page, and a template, take no longer than this on a busy computer without KVM. */
const BOOT_MS = 900_000;
const LIMITS = { cpus: 2, memoryMiB: 2048, pids: 1024 };
const CLI_LIMITS = { cpus: 2, memoryMiB: 1024, pids: 512 };
/** A browser machine counts as idle this long after its page was painted. */
const IDLE_MS = 3_000;
/** The checkpoint after which nothing of a machine's start is left. */
const LAST: Readonly<Record<MachineKind, Checkpoint>> = { browser: 'browser', cli: 'provider' };

interface Sample {
  /** Milliseconds from the request for the machine. */
  readonly healthy: number;
  /** Its checklist is through: a browser machine shows its page. */
  readonly ready: number;
  readonly memoryMiB: number;
  /** What its own disk takes of the host's. */
  readonly diskMiB: number;
}

/** What is measured: `qemu` with whatever works here, which is software emulation without KVM. */
export type VirtualDriver = 'qemu' | 'qemu-kvm' | 'firecracker';

export interface VirtualBench {
  readonly driver: VirtualDriver;
  readonly runs: number;
  /** Settings of the host service that are not the usual ones: where Firecracker is, how slow this computer is. */
  readonly config?: Parameters<HostProcess['serve']>[0];
  /** One start of each kind first that is not counted; not where one takes minutes. */
  readonly warmUp: boolean;
}

export interface VirtualReport {
  readonly driver: string;
  /** Making what is copied, once. */
  readonly templateMs: number;
  readonly rows: readonly Row[];
}

/** `runs` boots of each kind, then as many copies. Needs root, the hypervisor and the image. */
export async function measureVirtual(
  { driver, runs, config, warmUp }: VirtualBench,
  progress: Output['progress'],
  signal: AbortSignal,
): Promise<VirtualReport> {
  using alone = HostProcess.alone(driver, BOOT_MS, config?.slowdown);
  const { host } = alone;
  const measure = async (stage: string, kind: MachineKind, copied: boolean): Promise<Row[]> => {
    const samples: Sample[] = [];
    for (let run = warmUp ? 0 : 1; run <= runs; run++) {
      const sample = await measureOne(alone, { kind, copied }, signal);
      if (run > 0) samples.push(sample);
      progress({ stage, index: 1, count: 1, message: `${run} of ${runs}`, fraction: run / runs });
    }
    return rowsOf(stage, kind, samples);
  };
  await host.serve(config);
  try {
    const boots = [
      ...(await measure('CLI machine', 'cli', false)),
      ...(await measure('browser machine', 'browser', false)),
    ];
    await host.end('SIGTERM');
    await host.serve({ ...config, snapshotStart: { enabled: true, idleSeconds: 0 } });
    const templateMs = await untilTemplate(host, signal);
    const rows = [...boots, ...(await measure('copy of a browser machine', 'browser', true))];
    return { driver, templateMs, rows };
  } finally {
    await host.end('SIGTERM');
  }
}

/** Starts what the template will be like, and waits for it; how long making it took, about. */
async function untilTemplate(host: HostProcess, signal: AbortSignal): Promise<number> {
  const { spec } = host.guest('browser', LIMITS, 'internet');
  await host.host.put(spec);
  await host.host.destroy(spec.id);
  const began = performance.now();
  while ((await host.host.health()).templates !== 1) {
    signal.throwIfAborted();
    if (performance.now() - began > BOOT_MS)
      throw new PolydevError('not_ready', 'no template was made in time');
    await sleep(500);
  }
  return Math.round(performance.now() - began);
}

async function measureOne(
  { host, config }: ReturnType<typeof HostProcess.alone>,
  { kind, copied }: { kind: MachineKind; copied: boolean },
  signal: AbortSignal,
): Promise<Sample> {
  const { spec, agent } = host.guest(kind, kind === 'cli' ? CLI_LIMITS : LIMITS, 'internet');
  const last = LAST[kind];
  const began = performance.now();
  const since = (): number => Math.round(performance.now() - began);
  try {
    await host.host.put(spec);
    let healthy: number | undefined;
    for (;;) {
      signal.throwIfAborted();
      const health = await agent.health().catch(() => undefined);
      if (health !== undefined) healthy ??= since();
      if (health?.failure != null) throw new PolydevError(health.failure.code, health.failure.message);
      if (health?.ready === true && health.stamps.some(({ checkpoint }) => checkpoint === last)) break;
      if (since() > BOOT_MS) throw new PolydevError('not_ready', `it did not reach ${last} in time`);
      await sleep(50);
    }
    const ready = since();
    const described = await host.host.get(spec.id);
    if ((described?.copied === true) !== copied)
      throw new PolydevError('internal', 'it did not start as it should');
    await sleep(IDLE_MS);
    const { anonymousMiB } = await memoryOf(config.instance, spec.id);
    const diskMiB = await diskMiBOf(config.dataDir, spec.id);
    return { healthy: healthy ?? ready, ready, memoryMiB: anonymousMiB, diskMiB };
  } finally {
    await host.host.destroy(spec.id);
  }
}

const rowsOf = (name: string, kind: MachineKind, samples: readonly Sample[]): Row[] => [
  row(
    `${name}: request -> agent healthy (ms)`,
    samples.map((s) => s.healthy),
  ),
  row(
    `${name}: request -> ${kind === 'browser' ? "Chromium's page painted" : 'ready'} (ms)`,
    samples.map((s) => s.ready),
  ),
  row(
    `${name}: memory of its own, idle (MiB)`,
    samples.map((s) => s.memoryMiB),
  ),
  row(
    `${name}: private disk, idle (MiB)`,
    samples.map((s) => s.diskMiB),
  ),
];

/** As a table, or as one line of JSON. */
export function showVirtual(
  { driver, templateMs, rows }: VirtualReport,
  json: boolean,
  output: Output,
): void {
  if (json) {
    output.result(JSON.stringify({ driver, templateMs, rows }));
    return;
  }
  const cells = (r: Row): string[] => [
    r.name,
    String(r.n),
    String(r.median),
    String(r.p95),
    `${r.min}-${r.max}`,
  ];
  const template = ['template: made, once (ms)', '1', String(templateMs), '', ''];
  output.result(table([driver.toUpperCase(), 'N', 'MEDIAN', 'P95', 'RANGE'], [...rows.map(cells), template]));
}
