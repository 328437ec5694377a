/** Warm start: from a session's request to a machine of the pool that is checked and the session's own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { connectApi } from '../cli/api.ts';
import type { Settings as Installation } from '../cli/settings.ts';
import { Host, Machine, Session } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import { Settings } from '../protocol/settings.ts';

const DEADLINE_MS = 120_000;

/** Milliseconds. `claim` counts from the session's turn, the others from its request. */
export interface WarmSample {
  readonly claim: number;
  readonly healthy: number;
  /** Its page is painted before anybody claims it: never sooner than healthy. */
  readonly painted: number;
}

/** Keeps one warm test machine, claims it `runs` times, and leaves the settings as they were. */
export async function measureWarm(
  installation: Installation,
  runs: number,
  signal: AbortSignal,
): Promise<WarmSample[]> {
  const api = await connectApi(installation);
  const { warmTestMachines, warmRefillSeconds } = await api.request('GET', '/api/settings', Settings);
  const change = (patch: Partial<Settings>) => api.request('PATCH', '/api/settings', Settings, patch);
  const until = async <T>(read: () => Promise<T>, fits: (value: T) => boolean): Promise<T> => {
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const value = await read();
      if (fits(value)) return value;
      if (performance.now() > end) throw new PolydevError('not_ready', 'the pool did not get there in time');
      await sleep(100, undefined, { signal });
    }
  };
  const hosts = async () =>
    (await api.request('GET', '/api/hosts', z.object({ hosts: z.array(Host) }))).hosts;
  const samples: WarmSample[] = [];
  await change({ warmTestMachines: 1, warmRefillSeconds: 0 });
  try {
    for (let run = 0; run < runs && !signal.aborted; run++) {
      await until(hosts, ([host]) => host !== undefined && host.pool.ready > 0 && host.pool.starting === 0);
      const { id } = await api.request('POST', '/api/auth/start', Session, {
        provider: 'codex',
        realm: 'test',
        userId: `bench-${process.pid}-warm-${run}`,
        expiresInSeconds: 120,
      });
      const read = () => api.request('GET', `/api/auth/session/${id}`, Session);
      const session = await until(read, ({ state }) => state !== 'queued' && state !== 'preparing');
      await api.request('DELETE', `/api/auth/session/${id}`, Session);
      const machine = await api.request('GET', `/api/machines/${session.browserMachineId}`, Machine);
      samples.push(sampleOf(session, machine));
    }
  } finally {
    await change({ warmTestMachines, warmRefillSeconds });
  }
  return samples;
}

function sampleOf(session: Session, machine: Machine): WarmSample {
  const at = (subject: 'session' | 'machine', name: string): number => {
    const event = session.timeline.find(
      (e) => e.subject === subject && e.kind === 'state' && e.name === name,
    );
    if (event === undefined)
      throw new PolydevError('not_ready', `the session has no ${name} of its ${subject}`);
    return Date.parse(event.at);
  };
  const begun = Date.parse(session.createdAt);
  const claimed = at('machine', 'ready');
  const painted = machine.stamps.find(({ checkpoint }) => checkpoint === 'browser')?.at;
  if (painted === undefined || Date.parse(painted) > begun)
    throw new PolydevError('not_ready', 'the machine was not warm');
  return {
    claim: claimed - at('session', 'preparing'),
    healthy: claimed - begun,
    painted: Math.max(claimed, Date.parse(painted)) - begun,
  };
}
