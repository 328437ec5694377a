import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { recordAudit } from './audit.ts';
import { type OpenDatabase, openDatabase } from './database.ts';
import { advanceMachine, getMachine, requestMachine } from './machines.ts';
import { prune } from './prune.ts';
import {
  advanceSession,
  createSession,
  getSession,
  markCleaned,
  patchSession,
  recordStep,
} from './sessions.ts';
import { readStatistics } from './statistics.ts';
import type { Tables } from './tables.ts';

const USER = UserId.parse('ada');
const OLD = new Date(Date.now() - 100 * 86_400_000);
const CUTOFF = new Date(Date.now() - 90 * 86_400_000);

let postgres: TestPostgres;
let open: OpenDatabase;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());
beforeEach(async () => {
  open = await openDatabase({ url: await postgres.createDatabase() });
});
afterEach(() => open[Symbol.asyncDispose]());

/** A session that has run its course, with its machine gone. */
async function endedSession() {
  const { db } = open;
  const id = newSessionId();
  await createSession(db, {
    id,
    userId: USER,
    provider: 'codex',
    account: 'default',
    realm: 'test',
    expiresAt: new Date(),
  });
  const machine = await requestMachine(db, {
    id: newMachineId(),
    kind: 'browser',
    realm: 'test',
    userId: USER,
    sessionId: id,
    hostId: 'local',
    limits: { cpus: 1, memoryMiB: 64, pids: 32 },
    display: { width: 800, height: 600 },
  });
  await patchSession(db, id, { browserMachineId: machine.id });
  await recordStep(db, id, 'capture', 1_500);
  await advanceMachine(db, machine.id, 'destroying');
  await advanceMachine(db, machine.id, 'destroyed');
  await advanceSession(db, id, 'cancelled');
  await markCleaned(db, id, 20, null);
  await recordAudit(db, { who: USER, action: 'login.cancel', target: id });
  return { id, machine: machine.id };
}

const rowsOf = async (table: keyof Tables) =>
  Number(
    (
      await open.db
        .selectFrom(table)
        .select((eb) => eb.fn.countAll().as('n'))
        .executeTakeFirstOrThrow()
    ).n,
  );

describe('what is too old', () => {
  it('is removed in batches, and nothing else', async () => {
    const { db } = open;
    const olds = [await endedSession(), await endedSession(), await endedSession()];
    await db.updateTable('loginSessions').set({ endedAt: OLD, cleanedAt: OLD }).execute();
    await db.updateTable('machines').set({ endedAt: OLD }).execute();
    await db
      .updateTable('timeline')
      .set({ at: OLD } as never)
      .execute();
    await db
      .updateTable('audit')
      .set({ at: OLD } as never)
      .execute();
    const fresh = await endedSession();
    const before = { timeline: await rowsOf('timeline'), audit: await rowsOf('audit') };

    await prune(db, CUTOFF, new AbortController().signal, 2);
    for (const old of olds) {
      expect(await getSession(db, old.id)).toBeUndefined();
      expect(await getMachine(db, old.machine)).toBeUndefined();
    }
    expect(await getSession(db, fresh.id)).toBeDefined();
    expect(await getMachine(db, fresh.machine)).toBeDefined();
    expect(await rowsOf('timeline')).toBe(before.timeline / 4);
    expect(await rowsOf('audit')).toBe(before.audit / 4);
    expect(await prune(db, CUTOFF, new AbortController().signal)).toBe(0);
  });

  it('stays while it is not over, or something that stays refers to it', async () => {
    const { db } = open;
    const one = await endedSession();
    await db.updateTable('machines').set({ endedAt: OLD }).execute();
    const other = await endedSession();
    await db
      .updateTable('loginSessions')
      .set({ endedAt: OLD, cleanedAt: null })
      .where('id', '=', other.id)
      .execute();
    await prune(db, CUTOFF, new AbortController().signal);
    expect(await getMachine(db, one.machine)).toBeDefined();
    expect(await getSession(db, other.id)).toBeDefined();
  });
});

describe('statistics', () => {
  it('count each ending once, its steps with their sums, and what is there now', async () => {
    const { db } = open;
    const began = new Date(Date.now() - 60_000);
    await endedSession();
    await createSession(db, {
      id: newSessionId(),
      userId: USER,
      provider: 'codex',
      account: 'work',
      realm: 'test',
      expiresAt: new Date(),
    });
    let from = began;
    let ended = 0;
    const steps = [];
    for (let turn = 0; turn < 400 && ended === 0; turn++) {
      const now = await readStatistics(db, from, [1, 2]);
      expect(now.upTo.getTime()).toBeGreaterThanOrEqual(from.getTime());
      expect(now.active).toEqual([{ state: 'queued', count: 1 }]);
      expect(now.machines).toEqual([]);
      from = now.upTo;
      ended += now.ended.length;
      steps.push(...now.steps);
      if (ended > 0)
        expect(now.ended).toEqual([
          { provider: 'codex', realm: 'test', state: 'cancelled', code: 'none', count: 1 },
        ]);
      else await sleep(25);
    }
    expect(steps.toSorted((a, b) => a.step.localeCompare(b.step))).toEqual([
      { step: 'capture', count: 1, seconds: 1.5, within: [0, 1] },
      { step: 'clean_up', count: 1, seconds: 0.02, within: [1, 1] },
    ]);
    const again = await readStatistics(db, from, [1, 2]);
    expect(again).toMatchObject({ ended: [], steps: [] });
  });
});
