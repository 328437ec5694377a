/** The controller's part of what the doctor says: what only it can see. */
import { stat } from 'node:fs/promises';
import { sql } from 'kysely';
import type { DoctorCheck } from '../../protocol/doctor.ts';
import type { Database } from '../store/tables.ts';

/** Tickets, sessions and deadlines are compared across the two clocks, ms. */
const CLOCKS_APART_MS = 5_000;

/** Never throws. */
export async function ownChecks(db: Database, masterKeyFile: string | undefined): Promise<DoctorCheck[]> {
  const checks: readonly [string, () => Promise<DoctorCheck>][] = [
    ['database', () => database(db)],
    ['master key', () => masterKey(masterKeyFile)],
  ];
  return Promise.all(
    checks.map(async ([name, work]): Promise<DoctorCheck> => {
      try {
        return await work();
      } catch (error) {
        const evidence = error instanceof Error ? error.message : String(error);
        return { name, state: 'fail', evidence, remedy: "read the controller's log" };
      }
    }),
  );
}

async function database(db: Database): Promise<DoctorCheck> {
  const name = 'database';
  const asked = Date.now();
  const { rows } = await sql<{ version: string; now: Date }>`
    SELECT current_setting('server_version') AS version, clock_timestamp() AS now
  `.execute(db);
  const [answer] = rows;
  if (answer === undefined) throw new Error('Postgres gave no answer');
  const answered = Date.now();
  const evidence = `Postgres ${answer.version} answers in ${answered - asked} ms`;
  // Its clock was read between question and answer.
  const apart = Math.max(asked - answer.now.getTime(), answer.now.getTime() - answered, 0);
  if (apart > CLOCKS_APART_MS) {
    const seconds = Math.round(apart / 1000);
    const remedy = 'timedatectl set-ntp true, on both computers';
    return { name, state: 'warn', evidence: `${evidence}; its clock is ${seconds} s off ours`, remedy };
  }
  return { name, state: 'ok', evidence, remedy: null };
}

async function masterKey(file: string | undefined): Promise<DoctorCheck> {
  const name = 'master key';
  if (file === undefined) return { name, state: 'ok', evidence: 'from the environment', remedy: null };
  const { mode, uid } = await stat(file);
  const evidence = `its file has mode ${(mode & 0o777).toString(8).padStart(4, '0')} and belongs to user ${uid}`;
  return (mode & 0o077) === 0
    ? { name, state: 'ok', evidence, remedy: null }
    : { name, state: 'warn', evidence: `${evidence}: others can read it`, remedy: `chmod 0600 ${file}` };
}
