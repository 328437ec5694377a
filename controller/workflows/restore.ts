/** A CLI machine that has booted gets from the vault what is its person's, before anybody uses it. */
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId, ProviderId } from '../../protocol/ids.ts';
import { isConnectionLost } from '../store/connection.ts';
import { hasOpenLogin, listCredentialsOf } from '../store/credentials.ts';
import { getMachine } from '../store/machines.ts';
import type { CredentialRow, MachineRow } from '../store/tables.ts';
import { agentOf, type Context } from './context.ts';
import { withRetries } from './retries.ts';

/**
 * Installs the person's stored credentials of the machine's realm, one per provider: those that the machine should
 * hold and does not have, and those that nobody holds. What is complete in its home stays: the CLI renews its tokens
 * there, so it is newer than the vault's. Only a version that the vault got after the last installation replaces it.
 *
 * A provider with a login under way is left to that login.
 * @returns what could not be installed; the machine is usable without it
 */
export async function restoreCredentials(
  context: Context,
  machine: MachineRow,
  signal: AbortSignal,
): Promise<PolydevError | null> {
  const rows = await listCredentialsOf(context.db, machine.userId, machine.realm);
  let problem: PolydevError | null = null;
  for (const provider of new Set(rows.map((row) => row.provider))) {
    try {
      const candidates = rows.filter((row) => row.provider === provider);
      await withRetries(signal, () => restoreOne(context, machine, provider, candidates, signal));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (isConnectionLost(error)) throw error;
      const { code } = PolydevError.from(error);
      context.log.warn({ machine: machine.id, provider, code }, 'a credential could not be installed');
      problem = new PolydevError(
        'credential_install_failed',
        `the stored credential of ${provider} could not be installed in machine ${machine.id}: ${code}`,
      );
    }
  }
  return problem;
}

/** @param rows newest first, at least one */
async function restoreOne(
  context: Context,
  machine: MachineRow,
  provider: ProviderId,
  rows: readonly CredentialRow[],
  signal: AbortSignal,
): Promise<void> {
  if (await hasOpenLogin(context.db, { userId: machine.userId, realm: machine.realm, provider })) return;
  const held = rows.find((row) => row.holderMachineId === machine.id);
  const row = held ?? (await firstUnheld(context, rows));
  if (row === undefined) return;
  const stale = held?.installedVersion != null && held.installedVersion < held.version;
  if (!stale) {
    const { state } = await agentOf(context, machine.id).credentialStatus(provider, signal);
    if (state === 'complete') return;
  }
  await context.vault.install(agentOf(context, machine.id), machine, row.id, signal);
}

async function firstUnheld(
  context: Context,
  rows: readonly CredentialRow[],
): Promise<CredentialRow | undefined> {
  for (const row of rows) {
    if (row.holderMachineId === null || !(await isLive(context, row.holderMachineId))) return row;
  }
  return undefined;
}

async function isLive(context: Context, holder: MachineId): Promise<boolean> {
  const state = (await getMachine(context.db, holder))?.state;
  return state !== undefined && state !== 'destroyed';
}
