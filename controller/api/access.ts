/** Makes the secrets that let people and programs in, and finds their owners by the hashes in the store. */
import { createHash, randomBytes } from 'node:crypto';
import type { UserId } from '../../protocol/ids.ts';
import {
  consumeSignInLink,
  createApiKey,
  createSignInLink,
  createWebSession,
  deleteWebSession,
  findApiKey,
  findWebSession,
} from '../store/access.ts';
import { recordAudit } from '../store/audit.ts';
import type { Database } from '../store/tables.ts';
import type { Access, AuditLog, Role } from './caller.ts';

const SIGN_IN_LINK_LIFETIME_MS = 15 * 60_000;
const WEB_SESSION_LIFETIME_MS = 12 * 3_600_000;

/** 256 random bits; the prefix tells people and secret scanners what it is. */
const newSecret = (prefix: 'pdk' | 'pdl' | 'pdw'): string =>
  `${prefix}_${randomBytes(32).toString('base64url')}`;
const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** Stores a new API key and gives its plaintext, which is nowhere else. */
export async function makeApiKey(
  db: Database,
  owner: { userId: UserId; role: Role; name: string },
): Promise<string> {
  const key = newSecret('pdk');
  await createApiKey(db, { ...owner, hash: hashOf(key) });
  return key;
}

export function createAccess(db: Database): Access {
  /** The hashes of keys seen by this process, to ask again whether a key still holds. */
  const keyHashes = new Map<string, string>();
  return {
    async apiKey(token) {
      const hash = hashOf(token);
      const key = await findApiKey(db, hash);
      if (key === undefined) return undefined;
      keyHashes.set(key.id, hash);
      return { userId: key.userId, role: key.role, proof: { kind: 'api_key', id: key.id } };
    },

    async webSession(token) {
      const hash = hashOf(token);
      const session = await findWebSession(db, hash);
      if (session === undefined) return undefined;
      return { userId: session.userId, role: session.role, proof: { kind: 'web_session', id: hash } };
    },

    async createSignInLink(userId, role) {
      const token = newSecret('pdl');
      const expiresAt = new Date(Date.now() + SIGN_IN_LINK_LIFETIME_MS);
      await createSignInLink(db, { userId, role, hash: hashOf(token), expiresAt });
      return { token, expiresAt };
    },

    async consumeSignInLink(token) {
      const identity = await consumeSignInLink(db, hashOf(token));
      if (identity === undefined) return undefined;
      const sessionToken = newSecret('pdw');
      const hash = hashOf(sessionToken);
      const expiresAt = new Date(Date.now() + WEB_SESSION_LIFETIME_MS);
      const { userId, role } = identity;
      await createWebSession(db, { userId, role, hash, expiresAt });
      return { sessionToken, expiresAt, caller: { userId, role, proof: { kind: 'web_session', id: hash } } };
    },

    endWebSession: (id) => deleteWebSession(db, id),

    async holds(proof) {
      if (proof.kind === 'web_session') return (await findWebSession(db, proof.id)) !== undefined;
      const hash = keyHashes.get(proof.id);
      return hash !== undefined && (await findApiKey(db, hash)) !== undefined;
    },
  };
}

/** An API key is named by its id, a browser session by its person. */
export function createAuditLog(db: Database): AuditLog {
  return {
    async record({ caller, action, target }) {
      const who = caller.proof.kind === 'api_key' ? caller.proof.id : caller.userId;
      await recordAudit(db, { who, action, target });
    },
  };
}
