/**
 * bench/: benchmarks that print a table. Rows are measured in one run, side by side, so that their ratios mean
 * something on any computer; no test asserts a time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { connectApi } from '../cli/api.ts';
import { type Output, table } from '../cli/output.ts';
import { type Settings, settingsPaths } from '../cli/settings.ts';
import { Machine, Session } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import { CHECKPOINTS, type Checkpoint } from '../protocol/machine.ts';
import { diskMiBOf } from './disk.ts';
import { memoryOf } from './memory.ts';
import { type Row, row } from './row.ts';
import { measureWarm } from './warm.ts';

const SESSION_DEADLINE_MS = 90_000;
/** A browser machine counts as idle this long after its page was painted. */
const IDLE_MS = 3_000;

interface Sample {
  /** Milliseconds from the request for the machine to each checkpoint. */
  readonly stamps: ReadonlyMap<Checkpoint, number>;
  readonly anonymousMiB: number;
  readonly withCacheMiB: number;
  readonly diskMiB: number;
}

/**
 * Cold start of a browser machine and claim of a warm one, `runs` times each one after the other (after one that is not counted), beside the cost of starting an empty program in the same runtime's namespaces. Needs a running `./polydev up`.
 */
export async function benchStart(
  settings: Settings,
  options: { runs: number; json: boolean },
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  await using _keeper = await keepTestNetwork(settings);
  const samples: Sample[] = [];
  const bare: number[] = [];
  for (let run = 0; run <= options.runs && !signal.aborted; run += 1) {
    const sample = await measureOnce(settings, run);
    const bareMs = await measureBareNamespaces(signal);
    if (run === 0) continue;
    samples.push(sample);
    bare.push(bareMs);
    output.progress({
      stage: 'cold starts',
      index: 1,
      count: 1,
      message: `${run} of ${options.runs}`,
      fraction: run / options.runs,
    });
  }
  const warm = (await measureWarm(settings, options.runs + 1, signal)).slice(1);
  const warmRows = [
    row(
      'turn -> claimed and checked',
      warm.map((s) => s.claim),
    ),
    row(
      'request -> agent healthy',
      warm.map((s) => s.healthy),
    ),
    row(
      "request -> Chromium's page painted",
      warm.map((s) => s.painted),
    ),
  ];
  const rows = CHECKPOINTS.map((checkpoint) =>
    row(
      checkpoint,
      samples.flatMap((s) => s.stamps.get(checkpoint) ?? []),
    ),
  ).filter((r) => r.n > 0);
  const baseline = row('empty program in new namespaces', bare);
  const memory = row(
    'memory, idle (MiB, without page cache)',
    samples.map((s) => s.anonymousMiB),
  );
  const cache = row(
    'memory, idle (MiB, with page cache)',
    samples.map((s) => s.withCacheMiB),
  );
  const disk = row(
    'private disk, idle (MiB)',
    samples.map((s) => s.diskMiB),
  );
  if (options.json) {
    const all = { baseline, checkpoints: rows, warm: warmRows, memory: [memory, cache], disk };
    output.result(JSON.stringify(all));
    return;
  }
  const ratio = (value: number) => `${(value / baseline.median).toFixed(1)}x`;
  const cells = (r: Row) => [String(r.n), String(r.median), String(r.p95), `${r.min}-${r.max}`];
  output.result(
    table(
      ['MEASURED', 'N', 'MEDIAN', 'P95', 'RANGE', 'RATIO'],
      [
        [`${baseline.name} (ms)`, ...cells(baseline), '1.0x'],
        ...rows.map((r) => [`request -> ${meaning(r.name)} (ms)`, ...cells(r), ratio(r.median)]),
        ...warmRows.map((r) => [`warm: ${r.name} (ms)`, ...cells(r), ratio(r.median)]),
        [memory.name, ...cells(memory), ''],
        [cache.name, ...cells(cache), ''],
        [disk.name, ...cells(disk), ''],
      ],
    ),
  );
}

/**
 * The test network starts with the first test machine and stops with the last. A session that is open all the while keeps
 * it up, so that its start is not counted as a machine's: machines of real logins never wait for it.
 */
async function keepTestNetwork(settings: Settings): Promise<AsyncDisposable> {
  const api = await connectApi(settings);
  const session = await api.request('POST', '/api/auth/start', Session, {
    provider: 'codex',
    realm: 'test',
    userId: `bench-${process.pid}-keeper`,
    expiresInSeconds: 3600,
  });
  return {
    async [Symbol.asyncDispose]() {
      await api.request('DELETE', `/api/auth/session/${session.id}`, Session);
    },
  };
}

function meaning(checkpoint: string): string {
  const words: Record<string, string> = {
    agent: 'agent healthy',
    desktop: 'X server accepts connections',
    browser: "Chromium's page painted",
  };
  return words[checkpoint] ?? checkpoint;
}

async function measureOnce(settings: Settings, run: number): Promise<Sample> {
  const api = await connectApi(settings);
  const started = await api.request('POST', '/api/auth/start', Session, {
    provider: 'codex',
    realm: 'test',
    userId: `bench-${process.pid}-${run}`,
    expiresInSeconds: 120,
  });
  try {
    const session = await until(
      () => api.request('GET', `/api/auth/session/${started.id}`, Session),
      (s) => s.state !== 'queued' && s.state !== 'preparing',
    );
    if (session.error !== null) throw new PolydevError(session.error.code, session.error.message);
    const machine = await api.request('GET', `/api/machines/${session.browserMachineId}`, Machine);
    const begin = Date.parse(machine.createdAt);
    await sleep(IDLE_MS);
    return {
      stamps: new Map(machine.stamps.map((s) => [s.checkpoint, Date.parse(s.at) - begin])),
      ...(await memoryOf(settings.instance, machine.id)),
      diskMiB: await diskMiBOf(settingsPaths(settings).hostData, machine.id),
    };
  } finally {
    await api.request('DELETE', `/api/auth/session/${started.id}`, Session);
    await until(
      () => api.request('GET', `/api/auth/session/${started.id}`, Session),
      (s) => s.timeline.some((e) => e.subject === 'machine' && e.name === 'destroyed'),
    );
  }
}

async function until<T>(read: () => Promise<T>, fits: (value: T) => boolean): Promise<T> {
  const deadline = Date.now() + SESSION_DEADLINE_MS;
  for (;;) {
    const value = await read();
    if (fits(value)) return value;
    if (Date.now() > deadline) throw new PolydevError('not_ready', 'the session did not get there in time');
    await sleep(50);
  }
}

/** What the kernel alone costs: /bin/true in new user, mount, pid, network, ipc and uts namespaces. */
async function measureBareNamespaces(signal: AbortSignal): Promise<number> {
  const began = performance.now();
  await execa(
    'unshare',
    ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--net', '--ipc', '--uts', '/bin/true'],
    { timeout: 10_000, cancelSignal: signal },
  );
  return Math.round(performance.now() - began);
}
