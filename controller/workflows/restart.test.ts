import { randomBytes, randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { SessionId } from '../../protocol/ids.ts';
import { isFinal, type SessionState } from '../../protocol/lifecycles.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import { FakeHost, type Point } from '../../testkit/fakes/host.ts';
import { searchDatabase, startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { type OpenDatabase, openDatabase } from '../store/database.ts';
import { getMachine } from '../store/machines.ts';
import { getSession } from '../store/sessions.ts';
import type { SessionRow } from '../store/tables.ts';
import { type ChildOptions, type ControllerProcess, startController } from './testing/controller.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('a controller that is killed with SIGKILL', () => {
  let host: FakeHost;
  let open: OpenDatabase;
  let options: ChildOptions;
  let canary: string;
  const controllers: ControllerProcess[] = [];

  const startOne = async () => {
    const controller = await startController(options);
    controllers.push(controller);
    return controller;
  };
  beforeEach(async () => {
    canary = `canary${randomUUID().replaceAll('-', '')}`;
    const hostSocket = path.join(postgres.directory, `host-${randomUUID().slice(0, 8)}.sock`);
    host = await FakeHost.start(hostSocket, {
      files: codexFiles(canary),
      verify: { output: 'Logged in using ChatGPT\n', code: 0 },
    });
    const databaseUrl = await postgres.createDatabase();
    options = { databaseUrl, hostSocket, masterKey: randomBytes(32).toString('hex') };
    open = await openDatabase({ url: databaseUrl });
  });
  afterEach(async () => {
    await Promise.all(controllers.splice(0).map((controller) => controller.kill()));
    await open[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
  });

  const until = async (
    id: SessionId,
    what: string,
    test: (row: SessionRow) => boolean,
    patienceMs = 30_000,
  ): Promise<SessionRow> => {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const row = await getSession(open.db, id);
      if (row !== undefined && test(row)) return row;
      if (Date.now() > deadline) throw new Error(`never ${what}: ${JSON.stringify(row)}`);
      await sleep(20);
    }
  };
  const untilState = (id: SessionId, state: SessionState) => {
    return until(id, state, (row) => {
      if (isFinal(row.state) && row.state !== state)
        throw new Error(`${row.state}: ${JSON.stringify(row.error)}`);
      return row.state === state;
    });
  };
  const untilCleaned = (id: SessionId) => until(id, 'cleaned', (row) => row.cleanedAt !== null);
  const signIn = (row: SessionRow) => {
    if (row.browserMachineId === null) throw new Error('no browser machine');
    host.agent(row.browserMachineId).signIn();
  };
  const expectCompleted = async (id: SessionId) => {
    const row = await untilCleaned(id);
    expect(row.error).toBeNull();
    expect(row.state).toBe('completed');
    expect(row.verification).toBe('Logged in using ChatGPT');
    // Nothing is left but the person's CLI machine.
    expect(host.ids).toEqual([row.cliMachineId]);
    if (row.browserMachineId === null) throw new Error('no browser machine');
    expect(await getMachine(open.db, row.browserMachineId)).toMatchObject({ state: 'destroyed' });
    expect(await searchDatabase(options.databaseUrl, canary)).toEqual([]);
    for (const controller of controllers) expect(controller.log).not.toContain(canary);
  };

  const POINTS: readonly (readonly [Point, SessionState])[] = [
    ['put', 'preparing'],
    ['boot', 'preparing'],
    ['login', 'preparing'],
    ['files', 'capturing'],
    ['install', 'installing'],
    ['exec', 'installing'],
    ['delete', 'installing'],
  ];
  for (const [point, state] of POINTS) {
    it(`goes on after its next start: ${state} (at ${point})`, async () => {
      const first = await startOne();
      const early = state === 'preparing';
      const hold = host.hold(point);
      const id = await first.login('ada');
      if (!early) signIn(await untilState(id, 'waiting_for_person'));
      await hold.reached;
      await untilState(id, state);
      await first.kill();
      hold.release();
      await startOne();
      if (early) signIn(await untilState(id, 'waiting_for_person'));
      await expectCompleted(id);
    });
  }

  it('goes on after its next start: storing', async () => {
    const first = await startOne();
    const id = await first.login('ada');
    const waiting = await untilState(id, 'waiting_for_person');
    const hold = host.hold('files');
    signIn(waiting);
    await hold.reached;
    // The row cannot be written while another transaction holds the table.
    const client = new pg.Client({ connectionString: options.databaseUrl });
    await client.connect();
    await client.query('BEGIN');
    await client.query('LOCK TABLE polydev.credentials IN EXCLUSIVE MODE');
    hold.release();
    await untilState(id, 'storing');
    await first.kill();
    await client.query('COMMIT');
    await client.end();
    await startOne();
    await expectCompleted(id);
  });

  it('goes on after its next start: waiting for the person, who signs in meanwhile', async () => {
    const first = await startOne();
    const id = await first.login('ada');
    const waiting = await untilState(id, 'waiting_for_person');
    await first.kill();
    signIn(waiting);
    await startOne();
    await expectCompleted(id);
    expect(host.destroyed).toHaveLength(1);
  });

  it('goes on after its next start: between queued and any work', async () => {
    // Nothing but the row was written: the controller died before the workflow began.
    const id = 's_aaaaaaaaaaaaaaaaaaaa' as SessionId;
    const client = new pg.Client({ connectionString: options.databaseUrl });
    await client.connect();
    await client.query(`INSERT INTO polydev.users (id) VALUES ('ada')`);
    await client.query(
      `INSERT INTO polydev.login_sessions (id, user_id, provider, account, realm, state, expires_at)
       VALUES ($1, 'ada', 'codex', 'default', 'test', 'queued', now() + interval '5 min')`,
      [id],
    );
    await client.end();
    await startOne();
    signIn(await untilState(id, 'waiting_for_person'));
    await expectCompleted(id);
  });

  it('finds the machine dead after its next start and says so', async () => {
    const first = await startOne();
    const id = await first.login('ada');
    const waiting = await untilState(id, 'waiting_for_person');
    await first.kill();
    if (waiting.browserMachineId === null) throw new Error('no browser machine');
    host.kill(waiting.browserMachineId);
    await startOne();
    expect(await untilCleaned(id)).toMatchObject({ state: 'failed', error: { code: 'machine_exited' } });
    expect(host.ids).toEqual([]);
  });

  it('ends by name what belongs to another version of the workflows', async () => {
    const first = await startOne();
    const id = await first.login('ada');
    await untilState(id, 'waiting_for_person');
    await first.kill();
    const client = new pg.Client({ connectionString: options.databaseUrl });
    await client.connect();
    await client.query(`UPDATE dbos.workflow_status SET application_version = 'older'`);
    await client.end();
    await startOne();
    expect(await untilCleaned(id)).toMatchObject({
      state: 'failed',
      error: { code: 'controller_restarted' },
    });
    expect(host.ids).toEqual([]);
  });

  it('notices by itself, now and then, that a workflow has died beside its session', {
    timeout: 150_000,
  }, async () => {
    const first = await startOne();
    const id = await first.login('ada');
    await untilState(id, 'waiting_for_person');
    const other = await first.login('bob');
    const waiting = await untilState(other, 'waiting_for_person');
    const client = new pg.Client({ connectionString: options.databaseUrl });
    await client.connect();
    await client.query(`UPDATE dbos.workflow_status SET status = 'ERROR' WHERE workflow_uuid = $1`, [
      `login-${id}`,
    ]);
    await client.end();
    // It looks every half minute.
    const ended = await until(id, 'cleaned', (row) => row.cleanedAt !== null, 90_000);
    expect(ended).toMatchObject({ state: 'failed', error: { code: 'controller_restarted' } });
    // Nobody else's is touched.
    signIn(waiting);
    expect(await untilCleaned(other)).toMatchObject({ state: 'completed', error: null });
    expect(host.ids).toEqual([waiting.cliMachineId ?? (await getSession(open.db, other))?.cliMachineId]);
  });

  it('also goes on after it was stopped in order', async () => {
    const first = await startOne();
    const id = await first.login('ada');
    const waiting = await untilState(id, 'waiting_for_person');
    expect(await first.stop()).toBe(0);
    expect((await getSession(open.db, id))?.state).toBe('waiting_for_person');
    await startOne();
    signIn(waiting);
    await expectCompleted(id);
  });
});
