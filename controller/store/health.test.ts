/** What is written of ready machines, and what earlier boots took. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MachineHealth } from '../../protocol/api.ts';
import { DIAGNOSES, type DiagnosisName } from '../../protocol/diagnoses.ts';
import { type MachineId, newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { readBootTimes } from './boot-times.ts';
import { type OpenDatabase, openDatabase } from './database.ts';
import { listReadyMachines, recordHealth } from './health.ts';
import {
  advanceMachine,
  getMachine,
  patchMachine,
  recordStamp,
  requestMachine,
  toMachine,
} from './machines.ts';
import { readStatistics } from './statistics.ts';
import { readMachineEvents } from './timeline.ts';

let postgres: TestPostgres;
let open: OpenDatabase;
beforeAll(async () => {
  postgres = await startTestPostgres();
  open = await openDatabase({ url: await postgres.createDatabase() });
});
afterAll(async () => {
  await open[Symbol.asyncDispose]();
  await postgres[Symbol.asyncDispose]();
});

async function booting(driver: string): Promise<MachineId> {
  const { db } = open;
  const { id } = await requestMachine(db, {
    id: newMachineId(),
    kind: 'browser',
    realm: 'test',
    userId: UserId.parse('ada'),
    sessionId: newSessionId(),
    hostId: 'local',
    limits: { cpus: 1, memoryMiB: 64, pids: 32 },
    display: { width: 800, height: 600 },
  });
  await advanceMachine(db, id, 'creating');
  await patchMachine(db, id, { driver });
  await advanceMachine(db, id, 'booting');
  return id;
}

const degraded = (name: DiagnosisName): MachineHealth => {
  const { fault, summary, remedy } = DIAGNOSES[name];
  const at = new Date().toISOString();
  return {
    state: 'degraded',
    since: at,
    diagnosis: { name, fault, summary, remedy, lines: [], checkpoint: null, at },
  };
};
const healthy = (): MachineHealth => ({ state: 'healthy', since: new Date().toISOString(), diagnosis: null });

describe('health', () => {
  it('is written when it changes, with an event, and only of what was looked at', async () => {
    const { db } = open;
    const id = await booting('namespace');
    await advanceMachine(db, id, 'ready');
    const rows = await listReadyMachines(db, 'local');
    expect(rows.map((row) => row.id)).toEqual([id]);
    const [row] = rows;
    if (row === undefined) throw new Error('no row');
    const now = async () => {
      const found = await getMachine(db, id);
      if (found === undefined) throw new Error('no machine');
      return toMachine(found);
    };
    expect((await now()).health).toBeNull();
    expect(await recordHealth(db, row, healthy())).toBe('noted');
    expect(await recordHealth(db, row, healthy())).toBe('same');
    expect(await recordHealth(db, row, degraded('dns_dead'))).toBe('changed');
    expect(await recordHealth(db, row, degraded('dns_dead'))).toBe('same');
    expect((await now()).health).toMatchObject({ state: 'degraded', diagnosis: { name: 'dns_dead' } });
    expect((await readStatistics(db, new Date(), [1])).degraded).toEqual([
      { diagnosis: 'dns_dead', kind: 'browser', count: 1 },
    ]);
    expect(await recordHealth(db, row, degraded('no_network_device'))).toBe('changed');
    expect(await recordHealth(db, row, healthy())).toBe('changed');
    expect(await recordHealth(db, row, degraded('dns_dead'))).toBe('changed');
    const events = (await readMachineEvents(db, id)).filter(({ kind }) => kind === 'health');
    expect(events.map(({ name, detail }) => [name, detail])).toEqual([
      ['degraded', 'dns_dead'],
      ['degraded', 'no_network_device'],
      ['healthy', null],
      ['degraded', 'dns_dead'],
    ]);
    // A look that began before it ended says nothing of what it is now.
    await advanceMachine(db, id, 'destroying');
    expect(await recordHealth(db, row, degraded('agent_silent'))).toBe('same');
    expect((await now()).health).toBeNull();
    expect((await readStatistics(db, new Date(), [1])).degraded).toEqual([]);
  });
});

describe('boot times', () => {
  it('are of the driver and the kind, the newest hundred, up to the 95th percentile', async () => {
    const { db } = open;
    const reach = async (driver: string, ms: number) => {
      const id = await booting(driver);
      const started = (await getMachine(db, id))?.startedAt ?? new Date();
      const at = new Date(started.getTime() + ms).toISOString();
      const reached = await recordStamp(db, id, { checkpoint: 'agent', at });
      expect(reached).toEqual({ driver, kind: 'browser', durationMs: ms });
      expect(await recordStamp(db, id, { checkpoint: 'agent', at })).toBeUndefined();
    };
    const of = { hostId: 'local', driver: 'qemu', kind: 'browser' as const };
    expect(await readBootTimes(db, of)).toEqual(new Map());
    // Those that are too old to count were slow.
    for (let n = 0; n < 5; n++) await reach('qemu', 90_000);
    for (let n = 1; n <= 100; n++) await reach('qemu', n * 10);
    await reach('namespace', 5);
    const measured = await readBootTimes(db, of);
    expect([...measured.keys()]).toEqual(['agent']);
    expect(measured.get('agent')?.boots).toBe(100);
    expect(measured.get('agent')?.p95Ms).toBeCloseTo(950.5, 5);
    expect(await readBootTimes(db, { ...of, kind: 'cli' })).toEqual(new Map());
    expect(await readBootTimes(db, { ...of, hostId: 'other' })).toEqual(new Map());
  });
});
