/**
 * The sealed blob: AES-256-GCM under a random data key, the data key under the master key (AES-256-GCM as well).
 *
 *   magic "PDV1" 4 | key id 8 | wrap iv 12 | wrap tag 16 | wrapped data key 32 | iv 12 | tag 16 | ciphertext
 *
 * Both layers are bound to the row that holds the blob: one that was moved to another row, or put back from an older
 * version, does not open.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { PolydevError } from '../../protocol/errors.ts';
import type { CredentialId, ProviderId, UserId } from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import type { MasterKey } from './master-key.ts';

/** The row's identity. Every field is authenticated. */
export interface SealedIdentity {
  readonly userId: UserId;
  readonly provider: ProviderId;
  readonly account: string;
  readonly realm: Realm;
  readonly id: CredentialId;
  readonly version: number;
}

const MAGIC = Buffer.from('PDV1');
const CIPHER = 'aes-256-gcm';
const IV = 12;
const TAG = 16;
const KEY = 32;
const KEY_ID = 8;

const WRAP_IV_AT = MAGIC.length + KEY_ID;
const WRAP_TAG_AT = WRAP_IV_AT + IV;
const WRAPPED_AT = WRAP_TAG_AT + TAG;
const IV_AT = WRAPPED_AT + KEY;
const TAG_AT = IV_AT + IV;
const TEXT_AT = TAG_AT + TAG;

/** @param plaintext stays the caller's to overwrite */
export function seal(master: MasterKey, identity: SealedIdentity, plaintext: Buffer): Buffer {
  const dataKey = randomBytes(KEY);
  try {
    const iv = randomBytes(IV);
    const cipher = createCipheriv(CIPHER, dataKey, iv).setAAD(dataContext(identity));
    const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
    return Buffer.concat([wrap(master, identity, dataKey), iv, cipher.getAuthTag(), ciphertext]);
  } finally {
    dataKey.fill(0);
  }
}

/**
 * @returns the plaintext, to be overwritten by the caller
 * @throws vault_cannot_open
 */
export function open(master: MasterKey, identity: SealedIdentity, sealed: Buffer): Buffer {
  const dataKey = unwrap(master, identity, sealed);
  try {
    const decipher = createDecipheriv(CIPHER, dataKey, sealed.subarray(IV_AT, TAG_AT))
      .setAAD(dataContext(identity))
      .setAuthTag(sealed.subarray(TAG_AT, TEXT_AT));
    const start = decipher.update(sealed.subarray(TEXT_AT));
    try {
      return Buffer.concat([start, decipher.final()]);
    } finally {
      start.fill(0);
    }
  } catch {
    throw cannotOpen(identity, 'its content does not authenticate');
  } finally {
    dataKey.fill(0);
  }
}

/** The same plaintext and data key under another master key. */
export function rewrap(from: MasterKey, to: MasterKey, identity: SealedIdentity, sealed: Buffer): Buffer {
  const dataKey = unwrap(from, identity, sealed);
  try {
    return Buffer.concat([wrap(to, identity, dataKey), sealed.subarray(IV_AT)]);
  } finally {
    dataKey.fill(0);
  }
}

/** Whether a blob names this master key. */
export function isSealedWith(master: MasterKey, sealed: Buffer): boolean {
  return keyIdOf(sealed)?.equals(master.id) ?? false;
}

function keyIdOf(sealed: Buffer): Buffer | undefined {
  if (sealed.length < TEXT_AT || !sealed.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  return sealed.subarray(MAGIC.length, WRAP_IV_AT);
}

/** The head of a blob, up to and with the wrapped data key. */
function wrap(master: MasterKey, identity: SealedIdentity, dataKey: Buffer): Buffer {
  const iv = randomBytes(IV);
  const cipher = createCipheriv(CIPHER, master.bytes, iv).setAAD(wrapContext(identity, master.id));
  const wrapped = Buffer.concat([cipher.update(dataKey), cipher.final()]);
  return Buffer.concat([MAGIC, master.id, iv, cipher.getAuthTag(), wrapped]);
}

function unwrap(master: MasterKey, identity: SealedIdentity, sealed: Buffer): Buffer {
  const keyId = keyIdOf(sealed);
  if (keyId === undefined) throw cannotOpen(identity, 'it is no sealed blob of a known format');
  if (!keyId.equals(master.id)) {
    const names = `${keyId.toString('hex')}, this one is ${master.id.toString('hex')}`;
    throw cannotOpen(identity, `it was sealed with the master key ${names}`);
  }
  try {
    const decipher = createDecipheriv(CIPHER, master.bytes, sealed.subarray(WRAP_IV_AT, WRAP_TAG_AT))
      .setAAD(wrapContext(identity, keyId))
      .setAuthTag(sealed.subarray(WRAP_TAG_AT, WRAPPED_AT));
    return Buffer.concat([decipher.update(sealed.subarray(WRAPPED_AT, IV_AT)), decipher.final()]);
  } catch {
    throw cannotOpen(identity, 'its key does not authenticate');
  }
}

const wrapContext = (identity: SealedIdentity, keyId: Buffer) =>
  context(identity, { purpose: 'wrap', key: keyId.toString('hex') });
const dataContext = (identity: SealedIdentity) => context(identity, { purpose: 'data' });

/** Canonical JSON: keys sorted, no blanks. */
function context(identity: SealedIdentity, extra: Record<string, string>): Buffer {
  const fields: Record<string, string | number> = {
    format: 1,
    user: identity.userId,
    provider: identity.provider,
    account: identity.account,
    realm: identity.realm,
    credential: identity.id,
    version: identity.version,
    ...extra,
  };
  return Buffer.from(
    JSON.stringify(Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)))),
  );
}

const cannotOpen = (identity: SealedIdentity, why: string): PolydevError =>
  new PolydevError('vault_cannot_open', `credential ${identity.id} version ${identity.version}: ${why}`);
