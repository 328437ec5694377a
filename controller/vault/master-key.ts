/** Where the master key comes from: a file of its own, a value from the environment, or a passphrase. */
import { hkdfSync, randomBytes, randomUUID, scrypt } from 'node:crypto';
import { link, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { PolydevError } from '../../protocol/errors.ts';

/** 32 bytes that wrap every data key and from which all other keys are derived. */
export interface MasterKey {
  readonly bytes: Buffer;
  /** 8 bytes that name the key in sealed blobs; says nothing about the key itself. */
  readonly id: Buffer;
}

const FILE_PREFIX = 'polydev-master-key-1:';
const KEY_BYTES = 32;
const SALT_BYTES = 16;

/**
 * scrypt as RFC 7914 and OWASP's password storage advice give it for interactive use: 128 MiB and about half a second
 * per guess. A changed parameter is a changed key.
 */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1, maxmem: 192 * 1024 * 1024 } as const;

/** Any 32 random bytes as a master key. */
export function masterKeyFrom(bytes: Buffer): MasterKey {
  if (bytes.length !== KEY_BYTES) {
    throw new PolydevError('configuration_invalid', `a master key has ${KEY_BYTES} bytes`);
  }
  const id = Buffer.from(hkdfSync('sha256', bytes, Buffer.alloc(0), 'polydev/key-id/v1', 8));
  return { bytes: Buffer.from(bytes), id };
}

/**
 * Reads the master key's file, making it with a random key when there is none.
 * @throws configuration_invalid when others than its owner can read it, when it belongs to another user than the one
 * of this process, or when it holds no key
 */
export async function masterKeyFromFile(file: string): Promise<MasterKey> {
  const found = await readPrivateFile(file, 256);
  if (found !== undefined) return decode(found, file);
  const fresh = randomBytes(KEY_BYTES);
  await createPrivateFile(file, `${FILE_PREFIX}${fresh.toString('base64')}\n`);
  fresh.fill(0);
  // Another process may have been quicker: what counts is what is in the file.
  const written = await readPrivateFile(file, 256);
  if (written === undefined) throw new PolydevError('vault_key_missing', `${file} vanished`);
  return decode(written, file);
}

/** @param value 32 bytes as base64 or as 64 hexadecimal digits */
export function masterKeyFromValue(value: string): MasterKey {
  const trimmed = value.trim();
  const bytes = Buffer.from(trimmed, /^[0-9a-fA-F]{64}$/.test(trimmed) ? 'hex' : 'base64');
  if (bytes.length !== KEY_BYTES) {
    throw new PolydevError(
      'configuration_invalid',
      'the master key must be 32 bytes, as base64 or hexadecimal',
    );
  }
  return masterKeyFrom(bytes);
}

/** @param saltFile 16 random bytes as base64, made when there is none; without it the key cannot be found again */
export async function masterKeyFromPassphrase(passphrase: string, saltFile: string): Promise<MasterKey> {
  if (passphrase.length < 12) {
    throw new PolydevError(
      'configuration_invalid',
      'the passphrase of the vault needs 12 characters or more',
    );
  }
  if ((await readPrivateFile(saltFile, 64)) === undefined) {
    await createPrivateFile(saltFile, `${randomBytes(SALT_BYTES).toString('base64')}\n`);
  }
  const salt = Buffer.from((await readPrivateFile(saltFile, 64))?.toString('utf8') ?? '', 'base64');
  if (salt.length !== SALT_BYTES) {
    throw new PolydevError(
      'configuration_invalid',
      `${saltFile} does not hold a salt of ${SALT_BYTES} bytes`,
    );
  }
  const derive = promisify<string, Buffer, number, typeof SCRYPT, Buffer>(scrypt);
  return masterKeyFrom(await derive(passphrase.normalize('NFKC'), salt, KEY_BYTES, SCRYPT));
}

function decode(content: Buffer, file: string): MasterKey {
  const text = content.toString('utf8').trim();
  content.fill(0);
  const bytes = text.startsWith(FILE_PREFIX)
    ? Buffer.from(text.slice(FILE_PREFIX.length), 'base64')
    : undefined;
  if (bytes?.length !== KEY_BYTES) {
    throw new PolydevError('configuration_invalid', `${file} does not hold a master key`);
  }
  return masterKeyFrom(bytes);
}

/** The content of a file that only this user can read; undefined when there is none. */
async function readPrivateFile(file: string, maxBytes: number): Promise<Buffer | undefined> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(file, 'r');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new PolydevError('vault_key_missing', `${file} cannot be read`, { cause: error });
  }
  try {
    const { mode, uid, size } = await handle.stat();
    if (uid !== process.geteuid?.()) {
      throw new PolydevError('configuration_invalid', `${file} belongs to another user (uid ${uid})`);
    }
    if ((mode & 0o077) !== 0) {
      const octal = (mode & 0o777).toString(8);
      throw new PolydevError(
        'configuration_invalid',
        `${file} has mode ${octal}: it must be 600 or stricter`,
      );
    }
    if (size > maxBytes) throw new PolydevError('configuration_invalid', `${file} is too large`);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

/** Appears whole or not at all; one that exists stays as it is. */
async function createPrivateFile(file: string, content: string): Promise<void> {
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.${randomUUID()}.new`);
  const handle = await open(fresh, 'wx', 0o600);
  try {
    await handle.chmod(0o600);
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
  try {
    await link(fresh, file);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  } finally {
    await rm(fresh, { force: true });
  }
}
