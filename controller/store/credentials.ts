/** Credentials as sealed blobs and what may be known of them. Only the vault can open a blob. */
import { sql } from 'kysely';
import type { CredentialFacts } from '../../protocol/agent.ts';
import type { Credential } from '../../protocol/api.ts';
import type { CredentialId, MachineId, ProviderId, SessionId, UserId } from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import type { CredentialRow, Database, Tx } from './tables.ts';

/** Whose credential of what: one row each. */
export interface CredentialOwner {
  readonly userId: UserId;
  readonly provider: ProviderId;
  readonly account: string;
  readonly realm: Realm;
}

export async function getCredential(db: Database, id: CredentialId): Promise<CredentialRow | undefined> {
  return db.selectFrom('credentials').selectAll().where('id', '=', id).executeTakeFirst();
}

/** Locked until the transaction ends. */
export async function lockCredential(tx: Tx, id: CredentialId): Promise<CredentialRow | undefined> {
  return tx.selectFrom('credentials').selectAll().where('id', '=', id).forUpdate().executeTakeFirst();
}

/** Locked until the transaction ends. */
export async function lockCredentialOf(tx: Tx, owner: CredentialOwner): Promise<CredentialRow | undefined> {
  return tx
    .selectFrom('credentials')
    .selectAll()
    .where('userId', '=', owner.userId)
    .where('provider', '=', owner.provider)
    .where('account', '=', owner.account)
    .where('realm', '=', owner.realm)
    .forUpdate()
    .executeTakeFirst();
}

export interface CredentialVersion extends CredentialOwner {
  readonly id: CredentialId;
  readonly version: number;
  readonly sealed: Buffer;
  readonly facts: CredentialFacts;
  readonly capturedBy: SessionId | null;
}

/** Writes the first version of a credential, or a next one over the last. */
export async function saveCredential(tx: Tx, credential: CredentialVersion): Promise<void> {
  const { facts, ...rest } = credential;
  const values = { ...rest, facts: JSON.stringify(facts) };
  await tx
    .insertInto('credentials')
    .values(values)
    .onConflict((conflict) =>
      conflict.column('id').doUpdateSet({
        version: values.version,
        sealed: values.sealed,
        facts: values.facts,
        capturedBy: values.capturedBy,
        updatedAt: sql<Date>`clock_timestamp()`,
      }),
    )
    .execute();
}

/** Replaces the sealed blob of one version (same plaintext under another master key). */
export async function replaceSealed(tx: Tx, id: CredentialId, sealed: Buffer): Promise<void> {
  await tx.updateTable('credentials').set({ sealed }).where('id', '=', id).execute();
}

/**
 * Makes a machine the holder if nobody or the machine itself holds the credential.
 * @returns false when another machine holds it
 */
export async function claimHolder(db: Database, id: CredentialId, machineId: MachineId): Promise<boolean> {
  const row = await db
    .updateTable('credentials')
    .set({ holderMachineId: machineId })
    .where('id', '=', id)
    .where((where) =>
      where.or([where('holderMachineId', 'is', null), where('holderMachineId', '=', machineId)]),
    )
    .returning('id')
    .executeTakeFirst();
  return row !== undefined;
}

/** Notes that a machine holds the credential no more; another holder stays. */
export async function releaseHolder(db: Database, id: CredentialId, machineId: MachineId): Promise<void> {
  await db
    .updateTable('credentials')
    .set({ holderMachineId: null })
    .where('id', '=', id)
    .where('holderMachineId', '=', machineId)
    .execute();
}

/** Notes which version the holder got. */
export async function recordInstalled(
  db: Database,
  id: CredentialId,
  machineId: MachineId,
  version: number,
): Promise<void> {
  await db
    .updateTable('credentials')
    .set({ installedVersion: version })
    .where('id', '=', id)
    .where('holderMachineId', '=', machineId)
    .execute();
}

/** A person's credentials in a realm, newest first. */
export async function listCredentialsOf(
  db: Database,
  userId: UserId,
  realm: Realm,
): Promise<CredentialRow[]> {
  return db
    .selectFrom('credentials')
    .selectAll()
    .where('userId', '=', userId)
    .where('realm', '=', realm)
    .orderBy('updatedAt', 'desc')
    .orderBy('id')
    .execute();
}

/**
 * Whether a login of the person and provider is under way, or one has ended whose browser machine may still have the
 * credential: one that is kept after its session failed has none. Of any account, unless one is named: they share the
 * files in a home.
 */
export async function hasOpenLogin(
  db: Database,
  owner: Omit<CredentialOwner, 'account'> & { readonly account?: string },
): Promise<boolean> {
  let query = db
    .selectFrom('loginSessions')
    .leftJoin('machines', 'machines.id', 'loginSessions.browserMachineId')
    .select('loginSessions.id')
    .where('loginSessions.userId', '=', owner.userId)
    .where('loginSessions.provider', '=', owner.provider)
    .where('loginSessions.realm', '=', owner.realm)
    .where((where) =>
      where.or([
        where('loginSessions.endedAt', 'is', null),
        where.and([where('machines.state', '!=', 'destroyed'), where('machines.removeAt', 'is', null)]),
      ]),
    );
  if (owner.account !== undefined) query = query.where('loginSessions.account', '=', owner.account);
  return (await query.limit(1).executeTakeFirst()) !== undefined;
}

export async function deleteCredential(db: Database, id: CredentialId): Promise<void> {
  await db.deleteFrom('credentials').where('id', '=', id).execute();
}

export async function listCredentialIds(db: Database): Promise<CredentialId[]> {
  const rows = await db.selectFrom('credentials').select('id').orderBy('id').execute();
  return rows.map((row) => row.id);
}

/** Newest first, at most 200. */
export async function listCredentials(db: Database, filter: { userId?: UserId }): Promise<CredentialRow[]> {
  let query = db.selectFrom('credentials').selectAll();
  if (filter.userId !== undefined) query = query.where('userId', '=', filter.userId);
  return query.orderBy('updatedAt', 'desc').orderBy('id').limit(200).execute();
}

/** As the public API shows it: no secret. */
export function toCredential(row: CredentialRow): Credential {
  return {
    id: row.id,
    userId: row.userId,
    provider: row.provider,
    account: row.account,
    realm: row.realm,
    version: row.version,
    facts: row.facts,
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
    holderMachineId: row.holderMachineId,
  };
}
