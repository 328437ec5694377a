/** What DBOS takes up of a controller that is gone: work that was done and not noted as done, or never begun. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type MachineId, newMachineId, UserId } from '../../protocol/ids.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import { startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import { requestMachine } from '../store/machines.ts';
import { DEFAULT_SETTINGS } from './context.ts';
import { WorkflowBench, waitFor } from './testing/bench.ts';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

describe('work of an earlier controller', () => {
  let bench: WorkflowBench;
  let client: pg.Client;
  let id: MachineId;

  beforeEach(async () => {
    bench = await WorkflowBench.start(postgres);
    client = new pg.Client({ connectionString: bench.url });
    await client.connect();
    const { limits, display } = DEFAULT_SETTINGS;
    const request = { kind: 'cli', realm: 'test', userId: UserId.parse('ada'), sessionId: null } as const;
    const more = { id: newMachineId(), hostId: 'local', limits: limits.cli, display };
    const made = await requestMachine(bench.open.db, { ...request, ...more });
    id = made.id;
    // Whoever opens a terminal starts it.
    const terminal = await bench.services.machines.terminal(id, { cols: 80, rows: 24 });
    await terminal.close();
    terminal.stream.destroy();
  });
  afterEach(async () => {
    await client.end();
    await bench[Symbol.asyncDispose]();
  });

  const act = (action: Action) => bench.services.machines[action](id);
  const state = async (): Promise<MachineState | undefined> => (await bench.services.machines.get(id))?.state;

  /** The next controller finds the newest workflow of this name as one whose end was never noted, and does it again. */
  const takeUp = async (name: string): Promise<void> => {
    const found = await client.query<{ workflow_uuid: string }>(
      'SELECT workflow_uuid FROM dbos.workflow_status WHERE workflow_uuid LIKE $1 ORDER BY created_at DESC LIMIT 1',
      [`${name}-${id}-%`],
    );
    const workflow = found.rows[0]?.workflow_uuid;
    if (workflow === undefined) throw new Error(`there is no ${name}`);
    await bench.leave();
    await client.query('DELETE FROM dbos.operation_outputs WHERE workflow_uuid = $1', [workflow]);
    await client.query(
      `UPDATE dbos.workflow_status SET status = 'PENDING', output = NULL, error = NULL WHERE workflow_uuid = $1`,
      [workflow],
    );
    await bench.serve();
    await waitFor(async () => {
      const { rows } = await client.query<{ status: string }>(
        'SELECT status FROM dbos.workflow_status WHERE workflow_uuid = $1',
        [workflow],
      );
      return rows[0]?.status === 'SUCCESS';
    });
    const { rows } = await client.query('SELECT 1 FROM dbos.operation_outputs WHERE workflow_uuid = $1', [
      workflow,
    ]);
    expect(rows, 'its step was taken up').toHaveLength(1);
  };

  type Action = 'start' | 'stop' | 'hibernate' | 'resume';
  const DONE: readonly (readonly [Action, Action, MachineState, readonly Action[]])[] = [
    ['hibernate', 'resume', 'ready', []],
    ['resume', 'hibernate', 'hibernated', ['hibernate']],
    ['stop', 'start', 'ready', []],
    ['start', 'stop', 'stopped', ['stop']],
  ];
  it.each(DONE)('does not undo what came after it: %s, then %s', async (first, then, ends, before) => {
    for (const action of before) await act(action);
    await act(first);
    await act(then);
    expect(await state()).toBe(ends);
    await takeUp(first);
    expect(await state()).toBe(ends);
  });

  it('does what was asked for and never begun', async () => {
    await act('hibernate');
    await act('resume');
    // As it was when the hibernation was asked for: four changes ago.
    await client.query('UPDATE polydev.machines SET revision = revision - 4 WHERE id = $1', [id]);
    await takeUp('hibernate');
    expect(await state()).toBe('hibernated');
  });

  it('goes on with what stands in the middle of it', async () => {
    await act('hibernate');
    await client.query(`UPDATE polydev.machines SET state = 'hibernating' WHERE id = $1`, [id]);
    await takeUp('hibernate');
    expect(await state()).toBe('hibernated');
  });
});
