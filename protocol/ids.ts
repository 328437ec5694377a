/**
 * protocol/: schemas, ids, state tables and error codes of everything that crosses a process boundary.
 * This folder imports only zod, so that every process (the guest included) can share it.
 */
import { z } from 'zod';

/** 20 lower-case base-32 characters (100 random bits): safe in file names, host names and interface names' hashes. */
const RANDOM = '[a-z2-7]{20}';

const idSchema = <Brand extends string>(prefix: string, brand: Brand) =>
  z
    .string()
    .regex(new RegExp(`^${prefix}_${RANDOM}$`), `must look like ${prefix}_ and 20 characters of a-z and 2-7`)
    .brand(brand);

export const MachineId = idSchema('m', 'MachineId');
export type MachineId = z.infer<typeof MachineId>;
export const SessionId = idSchema('s', 'SessionId');
export type SessionId = z.infer<typeof SessionId>;
export const CredentialId = idSchema('c', 'CredentialId');
export type CredentialId = z.infer<typeof CredentialId>;
export const ApiKeyId = idSchema('k', 'ApiKeyId');
export type ApiKeyId = z.infer<typeof ApiKeyId>;

/** The caller's own name for a person, for example a Supabase user id. */
export const UserId = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._@:-]*$/, 'letters, digits and . _ @ : - only')
  .brand('UserId');
export type UserId = z.infer<typeof UserId>;

export const ProviderId = z.enum(['codex']);
export type ProviderId = z.infer<typeof ProviderId>;

/** The golden image's identity: the first 16 hex digits of a SHA-256 over its layers' identities. */
export const ImageId = z
  .string()
  .regex(/^[0-9a-f]{16}$/)
  .brand('ImageId');
export type ImageId = z.infer<typeof ImageId>;

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

function randomName(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(20));
  return Array.from(bytes, (b) => ALPHABET[b & 31]).join('');
}

export const newMachineId = (): MachineId => MachineId.parse(`m_${randomName()}`);
export const newSessionId = (): SessionId => SessionId.parse(`s_${randomName()}`);
export const newCredentialId = (): CredentialId => CredentialId.parse(`c_${randomName()}`);
export const newApiKeyId = (): ApiKeyId => ApiKeyId.parse(`k_${randomName()}`);
