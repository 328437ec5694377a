/** credentials/: a provider's credential files in the person's home: looked at, handed out, installed, deleted. */

import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import type { CredentialBundle, CredentialFile, CredentialStatus } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { Provider } from '../../providers/provider.ts';
import { asPerson, type Person } from '../person.ts';

const MAX_FILE = 1024 * 1024;

/** The files of the credential that exist now. A file that is no regular one, or far too large, counts as absent. */
export function readCredential(person: Person, provider: Provider): CredentialFile[] {
  return asPerson(person, () =>
    provider.credential.files.flatMap((file): CredentialFile[] => {
      const content = readRegular(path.join(person.home, file.path));
      return content === undefined
        ? []
        : [{ path: file.path, mode: file.mode, contentBase64: content.toString('base64') }];
    }),
  );
}

/** Opening first and looking at what was opened leaves no moment in which the file could be swapped. */
function readRegular(file: string): Buffer | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return undefined;
  }
  try {
    const stat = fstatSync(descriptor);
    return stat.isFile() && stat.size <= MAX_FILE ? readFileSync(descriptor) : undefined;
  } finally {
    closeSync(descriptor);
  }
}

/** Whether the credential is there and whole. Holds no token. */
export function credentialStatus(person: Person, provider: Provider): CredentialStatus {
  const files = readCredential(person, provider);
  if (files.length === 0) return { provider: provider.id, state: 'absent', facts: null, problem: null };
  const check = provider.credential.check(files);
  return check.state === 'complete'
    ? { provider: provider.id, state: 'complete', facts: check.facts, problem: null }
    : { provider: provider.id, state: 'incomplete', facts: null, problem: check.problem };
}

/** The plaintext files, for the vault alone. */
export function credentialBundle(person: Person, provider: Provider): CredentialBundle {
  const files = readCredential(person, provider);
  if (files.length === 0) {
    throw new PolydevError('credential_missing', `there is no credential of ${provider.title} here`);
  }
  return { provider: provider.id, files };
}

/** Writes the credential and what a fresh home needs beside it; each file appears whole or not at all. */
export function installCredential(
  person: Person,
  provider: Provider,
  bundle: CredentialBundle,
): CredentialStatus {
  if (bundle.provider !== provider.id) {
    throw new PolydevError('bad_request', `the bundle is one of ${bundle.provider}`);
  }
  const known = new Map(provider.credential.files.map((file) => [file.path, file.mode]));
  const stranger = bundle.files.find((file) => !known.has(file.path));
  if (stranger !== undefined) {
    throw new PolydevError('bad_request', `${stranger.path} is no credential file of ${provider.title}`);
  }
  const check = provider.credential.check(bundle.files);
  if (check.state === 'incomplete') throw new PolydevError('credential_incomplete', check.problem);
  try {
    asPerson(person, () => {
      for (const file of [...provider.installs(bundle.files), ...bundle.files]) {
        writeWhole(person.home, file, known.get(file.path) ?? file.mode);
      }
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PolydevError('credential_install_failed', why, { cause });
  }
  return credentialStatus(person, provider);
}

function writeWhole(home: string, file: CredentialFile, mode: number): void {
  const target = path.join(home, file.path);
  if (!target.startsWith(`${home}/`)) throw new Error(`${file.path} lies outside the home`);
  mkdirSync(path.dirname(target), { recursive: true, mode: 0o700 });
  const temporary = `${target}.${randomBytes(6).toString('hex')}`;
  const descriptor = openSync(temporary, 'wx', 0o600);
  try {
    try {
      const content = Buffer.from(file.contentBase64, 'base64');
      for (let written = 0; written < content.length; ) written += writeSync(descriptor, content, written);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    chmodSync(temporary, mode & 0o700);
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Deletes the files. The CLI's own logout is never run: it would revoke the tokens that the vault holds. */
export function deleteCredential(person: Person, provider: Provider): void {
  asPerson(person, () => {
    for (const file of provider.credential.files) rmSync(path.join(person.home, file.path), { force: true });
  });
}
