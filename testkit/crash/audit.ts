/** What is left over: on the computer, at the host service and in the database. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createHostClient } from '../../controller/hosts/host-client.ts';
import { audit, auditSettled } from '../../host/leaks.ts';
import type { Rig } from './rig.ts';

/** What must not be there when nobody uses the installation. Each query names what it finds. */
const ROWS: readonly string[] = [
  `SELECT 'session ' || id || ' is ' || state AS found FROM polydev.login_sessions
   WHERE state NOT IN ('completed', 'failed', 'cancelled', 'expired')`,
  `SELECT 'session ' || id || ' is not cleaned' AS found FROM polydev.login_sessions WHERE cleaned_at IS NULL`,
  `SELECT 'session ' || id || ' ended without a name' AS found FROM polydev.login_sessions
   WHERE state <> 'completed' AND (error IS NULL OR error->>'code' = 'internal')`,
  `SELECT kind || ' machine ' || id || ' is ' || state AS found FROM polydev.machines WHERE state <> 'destroyed'`,
  `SELECT 'credential ' || c.id || ' is held by ' || c.holder_machine_id AS found FROM polydev.credentials c
   LEFT JOIN polydev.machines m ON m.id = c.holder_machine_id
   WHERE c.holder_machine_id IS NOT NULL AND (m.id IS NULL OR m.state = 'destroyed')`,
  `SELECT 'workflow ' || workflow_uuid || ' is ' || status AS found FROM dbos.workflow_status
   WHERE status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')`,
];

/** What a running installation without machines has on this computer, by kind and name, each as often as it is there. */
export async function traces(rig: Rig): Promise<string[]> {
  const found = await audit(rig.hostConfig);
  const folders = await readdir(path.join(rig.hostConfig.dataDir, 'machines')).catch(() => []);
  return [
    // A process that was started again has another number.
    ...found.map(({ kind, name }) => `${kind} ${kind === 'process' ? name.replace(/^\d+ /, '') : name}`),
    ...folders.map((name) => `folder machines/${name}`),
  ].sort();
}

/** How long what ends in the background (a destroy that goes on, a process that is reaped) may take. */
const SETTLE_MS = 10_000;

/** What is there beyond `before`, after at most ten seconds. Empty: nothing is left over. */
export async function leaksSince(rig: Rig, before: readonly string[]): Promise<string[]> {
  for (const limit = Date.now() + SETTLE_MS; ; await sleep(250)) {
    const left = beyond(before, [
      ...(await traces(rig)),
      ...(await rowsLeft(rig)),
      ...(await machinesLeft(rig)),
    ]);
    if (left.length === 0 || Date.now() > limit) return left;
  }
}

function beyond(before: readonly string[], now: readonly string[]): string[] {
  const rest = [...before];
  return now.filter((name) => {
    const at = rest.indexOf(name);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}

async function rowsLeft(rig: Rig): Promise<string[]> {
  const found = await Promise.all(ROWS.map((query) => rig.rows(query)));
  return found.flat().map((row) => String(row.found));
}

async function machinesLeft(rig: Rig): Promise<string[]> {
  const machines = await createHostClient(rig.hostConfig.socketPath).list(AbortSignal.timeout(10_000));
  return machines.map(({ id, state }) => `host machine ${id} is ${state}`);
}

/** After a full stop nothing at all may be left. */
export const leaksAfterStop = async (rig: Rig): Promise<string[]> =>
  (await auditSettled(rig.hostConfig)).map(({ kind, name }) => `${kind} ${name}`);
