/**
 * API keys, sign-in links and web sessions. Only SHA-256 hashes (hex) reach this file; `api/` makes the secrets and
 * hashes what callers send. All of them are random with at least 128 bits, so a plain hash is enough.
 */
import { type ApiKeyId, newApiKeyId, type UserId } from '../../protocol/ids.ts';
import type { Database, Role } from './tables.ts';
import { ensureUser } from './users.ts';

export interface Identity {
  readonly userId: UserId;
  readonly role: Role;
}

export interface ApiKeyIdentity extends Identity {
  readonly id: ApiKeyId;
  readonly name: string;
}

/** Stores a key by its hash and gives its id. The person is made known if new. */
export async function createApiKey(
  db: Database,
  key: { userId: UserId; role: Role; name: string; hash: string },
): Promise<ApiKeyId> {
  const id = newApiKeyId();
  await db.transaction().execute(async (tx) => {
    await ensureUser(tx, key.userId);
    await tx
      .insertInto('apiKeys')
      .values({ id, userId: key.userId, role: key.role, name: key.name, hash: key.hash })
      .execute();
  });
  return id;
}

/** The owner of a key that is not revoked. */
export async function findApiKey(db: Database, hash: string): Promise<ApiKeyIdentity | undefined> {
  return db
    .selectFrom('apiKeys')
    .select(['id', 'userId', 'role', 'name'])
    .where('hash', '=', hash)
    .where('revokedAt', 'is', null)
    .executeTakeFirst();
}

/** Idempotent. */
export async function revokeApiKey(db: Database, id: ApiKeyId): Promise<void> {
  await db
    .updateTable('apiKeys')
    .set({ revokedAt: new Date() })
    .where('id', '=', id)
    .where('revokedAt', 'is', null)
    .execute();
}

export async function createSignInLink(
  db: Database,
  link: Identity & { hash: string; expiresAt: Date },
): Promise<void> {
  await db.transaction().execute(async (tx) => {
    await ensureUser(tx, link.userId);
    await tx
      .insertInto('signInLinks')
      .values({ hash: link.hash, userId: link.userId, role: link.role, expiresAt: link.expiresAt })
      .execute();
  });
}

/** Uses the link up: gives its identity once, and undefined for a used, expired or unknown one. */
export async function consumeSignInLink(db: Database, hash: string): Promise<Identity | undefined> {
  return db
    .updateTable('signInLinks')
    .set({ usedAt: new Date() })
    .where('hash', '=', hash)
    .where('usedAt', 'is', null)
    .where('expiresAt', '>', new Date())
    .returning(['userId', 'role'])
    .executeTakeFirst();
}

/** Also forgets sessions and links that are over. */
export async function createWebSession(
  db: Database,
  session: Identity & { hash: string; expiresAt: Date },
): Promise<void> {
  await db.transaction().execute(async (tx) => {
    await ensureUser(tx, session.userId);
    await tx.deleteFrom('webSessions').where('expiresAt', '<', new Date()).execute();
    await tx.deleteFrom('signInLinks').where('expiresAt', '<', new Date()).execute();
    await tx
      .insertInto('webSessions')
      .values({
        hash: session.hash,
        userId: session.userId,
        role: session.role,
        expiresAt: session.expiresAt,
      })
      .execute();
  });
}

/** The person of a session that has not expired. */
export async function findWebSession(
  db: Database,
  hash: string,
): Promise<(Identity & { expiresAt: Date }) | undefined> {
  return db
    .selectFrom('webSessions')
    .select(['userId', 'role', 'expiresAt'])
    .where('hash', '=', hash)
    .where('expiresAt', '>', new Date())
    .executeTakeFirst();
}

/** Signs out; idempotent. */
export async function deleteWebSession(db: Database, hash: string): Promise<void> {
  await db.deleteFrom('webSessions').where('hash', '=', hash).execute();
}
