import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { newMachineId, newSessionId, type SessionId, UserId } from '../../protocol/ids.ts';
import {
  MACHINE_TRANSITIONS,
  type MachineState,
  SESSION_TRANSITIONS,
  type SessionState,
} from '../../protocol/lifecycles.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import {
  consumeSignInLink,
  createApiKey,
  createSignInLink,
  createWebSession,
  deleteWebSession,
  findApiKey,
  findWebSession,
  revokeApiKey,
} from './access.ts';
import { migrate, type OpenDatabase, openDatabase } from './database.ts';
import {
  advanceMachine,
  getMachine,
  listMachines,
  recordStamp,
  requestMachine,
  toMachine,
} from './machines.ts';
import { listen } from './notifications.ts';
import { advanceSession, createSession, getSession, recordStep } from './sessions.ts';
import { readSessionEvents, type TimelineNotice } from './timeline.ts';

const USER = UserId.parse('ada');
const later = (seconds: number) => new Date(Date.now() + seconds * 1000);
const hash = () => randomBytes(32).toString('hex');

let postgres: TestPostgres;
let database: OpenDatabase;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());
beforeEach(async () => {
  database = await openDatabase({ url: await postgres.createDatabase() });
});
afterEach(() => database[Symbol.asyncDispose]());

const newSession = async (id: SessionId = newSessionId(), account = 'default') => {
  await createSession(database.db, {
    id,
    userId: USER,
    provider: 'codex',
    account,
    realm: 'test',
    expiresAt: later(60),
  });
  return id;
};
const newMachine = (kind: 'browser' | 'cli' = 'browser', sessionId: SessionId | null = newSessionId()) =>
  requestMachine(database.db, {
    id: newMachineId(),
    kind,
    realm: 'test',
    userId: USER,
    sessionId: kind === 'cli' ? null : sessionId,
    hostId: 'local',
    limits: { cpus: 1, memoryMiB: 64, pids: 32 },
    display: { width: 800, height: 600 },
  });

describe('the database', () => {
  it('is migrated by several controllers at once, and again without effect', async () => {
    await Promise.all([1, 2, 3].map(() => migrate(database.url)));
    const id = await newSession();
    expect((await getSession(database.db, id))?.state).toBe('queued');
  });

  it('names a server that does not answer', async () => {
    const url = 'postgresql://polydev@localhost/polydev?host=%2Fnonexistent';
    await expect(openDatabase({ url })).rejects.toMatchObject({ code: 'database_unreachable' });
  });
});

describe('transitions', () => {
  it('of a session are allowed exactly as the table says', async () => {
    const states = Object.keys(SESSION_TRANSITIONS) as SessionState[];
    for (const from of states) {
      for (const to of states) {
        const id = await newSession(newSessionId(), `${from}.${to}`);
        await database.db.updateTable('loginSessions').set({ state: from }).where('id', '=', id).execute();
        const attempt = advanceSession(database.db, id, to);
        if (SESSION_TRANSITIONS[from].includes(to)) await attempt;
        else await expect(attempt, `${from} to ${to}`).rejects.toMatchObject({ code: 'illegal_transition' });
        const events = await readSessionEvents(database.db, id, 0);
        expect(events.map((event) => event.name)).toEqual(
          SESSION_TRANSITIONS[from].includes(to) ? ['queued', to] : ['queued'],
        );
      }
    }
  });

  it('of a machine are allowed exactly as the table says', async () => {
    const states = Object.keys(MACHINE_TRANSITIONS) as MachineState[];
    for (const from of states) {
      for (const to of states) {
        const { id } = await newMachine();
        await database.db.updateTable('machines').set({ state: from }).where('id', '=', id).execute();
        const attempt = advanceMachine(database.db, id, to);
        if (MACHINE_TRANSITIONS[from].includes(to)) await attempt;
        else await expect(attempt, `${from} to ${to}`).rejects.toMatchObject({ code: 'illegal_transition' });
        const allowed = MACHINE_TRANSITIONS[from].includes(to);
        expect((await getMachine(database.db, id))?.state).toBe(allowed ? to : from);
      }
    }
  });

  it('are narrowed by the caller and need the row', async () => {
    const { id } = await newMachine();
    await expect(advanceMachine(database.db, id, 'failed', {}, { from: ['ready'] })).rejects.toMatchObject({
      code: 'illegal_transition',
    });
    await expect(advanceMachine(database.db, newMachineId(), 'failed')).rejects.toMatchObject({
      code: 'not_found',
    });
    await expect(advanceSession(database.db, newSessionId(), 'failed')).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('of one session at the same time: one wins', async () => {
    const id = await newSession();
    const results = await Promise.allSettled(
      (['cancelled', 'expired', 'failed'] as const).map((to) => advanceSession(database.db, id, to)),
    );
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    expect(await readSessionEvents(database.db, id, 0)).toHaveLength(2);
  });
});

describe('sessions and machines', () => {
  it('has one live session per person, provider, account and realm', async () => {
    const id = await newSession();
    await expect(newSession()).rejects.toMatchObject({ code: 'login_in_progress' });
    await newSession(newSessionId(), 'work');
    await advanceSession(database.db, id, 'cancelled');
    await newSession();
  });

  it('has one CLI machine per person and realm, also for two at the same time', async () => {
    const made = await Promise.all([1, 2, 3].map(() => newMachine('cli')));
    expect(new Set(made.map((machine) => machine.id)).size).toBe(1);
    const [first] = made;
    if (first === undefined) throw new Error('no machine');
    await advanceMachine(database.db, first.id, 'failed');
    expect((await newMachine('cli')).id).not.toBe(first.id);
    expect(await listMachines(database.db, { userId: USER })).toHaveLength(2);
  });

  it('notes each boot checkpoint once, and anew after the next start', async () => {
    const session = await newSession();
    const { id } = await newMachine('browser', session);
    await advanceMachine(database.db, id, 'creating');
    const stamp = { checkpoint: 'init', at: new Date().toISOString() } as const;
    await recordStamp(database.db, id, stamp);
    await recordStamp(database.db, id, stamp);
    const row = await getMachine(database.db, id);
    if (row === undefined) throw new Error('no machine');
    expect(toMachine(row).stamps).toEqual([stamp]);
    const events = await readSessionEvents(database.db, session, 0);
    expect(events.filter((event) => event.kind === 'checkpoint')).toMatchObject([
      { subject: 'machine', id, name: 'init', at: stamp.at },
    ]);
    for (const state of ['booting', 'ready', 'stopped', 'creating'] as const) {
      await advanceMachine(database.db, id, state);
    }
    expect((await getMachine(database.db, id))?.stamps).toEqual([]);
  });
});

describe('notifications', () => {
  it('tell of each event, also after the connection was lost', async () => {
    const lost: Error[] = [];
    await using notifications = await listen({ url: database.url, onError: (error) => lost.push(error) });
    const seen: (TimelineNotice | undefined)[] = [];
    notifications.subscribe((notice) => seen.push(notice));
    const id = await newSession();
    const until = async (test: () => boolean) => {
      for (let turn = 0; turn < 400 && !test(); turn++) await sleep(25);
      expect(test()).toBe(true);
    };
    await until(() => seen.some((notice) => notice?.sessionId === id));

    const admin = new pg.Client({ connectionString: postgres.server.adminUrl });
    await admin.connect();
    await admin.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'polydev-listen'`,
    );
    await admin.end();
    await until(() => seen.includes(undefined));
    expect(lost).not.toEqual([]);
    const next = notifications.next(id, 60_000, new AbortController().signal);
    await recordStep(database.db, id, 'work', 12);
    await next;
    const events = await readSessionEvents(database.db, id, 0);
    expect(events.at(-1)).toMatchObject({ kind: 'step', name: 'work', durationMs: 12 });
  });
});

describe('access', () => {
  it('finds an API key by its hash until it is revoked', async () => {
    const key = { userId: USER, role: 'user', name: 'ci', hash: hash() } as const;
    const id = await createApiKey(database.db, key);
    expect(await findApiKey(database.db, key.hash)).toEqual({ id, userId: USER, role: 'user', name: 'ci' });
    expect(await findApiKey(database.db, hash())).toBeUndefined();
    await revokeApiKey(database.db, id);
    expect(await findApiKey(database.db, key.hash)).toBeUndefined();
  });

  it('lets a sign-in link work once and in time', async () => {
    const [good, late] = [hash(), hash()];
    await createSignInLink(database.db, { userId: USER, role: 'operator', hash: good, expiresAt: later(60) });
    await createSignInLink(database.db, { userId: USER, role: 'operator', hash: late, expiresAt: later(-1) });
    const uses = await Promise.all([1, 2, 3].map(() => consumeSignInLink(database.db, good)));
    expect(uses.filter((use) => use !== undefined)).toEqual([{ userId: USER, role: 'operator' }]);
    expect(await consumeSignInLink(database.db, late)).toBeUndefined();
  });

  it('knows a web session until it ends or is deleted', async () => {
    const [good, late] = [hash(), hash()];
    await createWebSession(database.db, { userId: USER, role: 'user', hash: good, expiresAt: later(60) });
    await createWebSession(database.db, { userId: USER, role: 'user', hash: late, expiresAt: later(-1) });
    expect(await findWebSession(database.db, good)).toMatchObject({ userId: USER, role: 'user' });
    expect(await findWebSession(database.db, late)).toBeUndefined();
    await deleteWebSession(database.db, good);
    expect(await findWebSession(database.db, good)).toBeUndefined();
  });
});
