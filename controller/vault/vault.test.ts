import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, chown, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CredentialBundle, CredentialStatus } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { newCredentialId, newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { codexFiles } from '../../testkit/fakes/codex.ts';
import { searchDatabase, startTestPostgres, type TestPostgres } from '../../testkit/postgres.ts';
import type { CredentialChannel } from '../hosts/agent-client.ts';
import { getCredential } from '../store/credentials.ts';
import { type OpenDatabase, openDatabase } from '../store/database.ts';
import { requestMachine } from '../store/machines.ts';
import { isSealedWith, open, rewrap, type SealedIdentity, seal } from './envelope.ts';
import {
  masterKeyFrom,
  masterKeyFromFile,
  masterKeyFromPassphrase,
  masterKeyFromValue,
} from './master-key.ts';
import { createVault, type Vault } from './vault.ts';

const USER = UserId.parse('ada');
const OWNER = { userId: USER, provider: 'codex', account: 'default', realm: 'test' } as const;

describe('the envelope', () => {
  const master = masterKeyFrom(randomBytes(32));
  const identity: SealedIdentity = { ...OWNER, id: newCredentialId(), version: 3 };
  const secret = 'refresh-token-of-ada';
  const sealed = seal(master, identity, Buffer.from(secret));

  it('opens to what was sealed, and never looks the same twice', () => {
    expect(open(master, identity, sealed).toString()).toBe(secret);
    expect(seal(master, identity, Buffer.from(secret)).equals(sealed)).toBe(false);
    expect(sealed.includes(secret)).toBe(false);
  });

  it('does not open when any byte was changed', () => {
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => open(master, identity, changed), `byte ${at}`).toThrow(
        expect.objectContaining({ code: 'vault_cannot_open' }),
      );
    }
    for (const length of [0, 3, 40, 99, sealed.length - 1]) {
      expect(() => open(master, identity, sealed.subarray(0, length)), `length ${length}`).toThrow(
        expect.objectContaining({ code: 'vault_cannot_open' }),
      );
    }
  });

  const other: readonly Partial<SealedIdentity>[] = [
    { userId: UserId.parse('bob') },
    { account: 'work' },
    { realm: 'internet' },
    { id: newCredentialId() },
    { version: 2 },
    { version: 4 },
  ];
  for (const change of other) {
    it(`does not open as another row: ${Object.keys(change)}`, () => {
      expect(() => open(master, { ...identity, ...change }, sealed)).toThrow(
        expect.objectContaining({ code: 'vault_cannot_open' }),
      );
    });
  }

  it('does not open with another key, even under the name of the right one', () => {
    const wrong = masterKeyFrom(randomBytes(32));
    expect(() => open(wrong, identity, sealed)).toThrow(/another|sealed with the master key/);
    expect(() => open({ bytes: wrong.bytes, id: master.id }, identity, sealed)).toThrow(
      expect.objectContaining({ code: 'vault_cannot_open' }),
    );
  });

  it('moves to another key without touching the content', () => {
    const next = masterKeyFrom(randomBytes(32));
    const moved = rewrap(master, next, identity, sealed);
    expect(open(next, identity, moved).toString()).toBe(secret);
    expect(isSealedWith(next, moved)).toBe(true);
    expect(() => open(master, identity, moved)).toThrow(PolydevError);
  });
});

describe('the master key', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'polydev-key-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('is made once, in a file for its owner only', async () => {
    const file = path.join(directory, 'key');
    const [one, other] = await Promise.all([masterKeyFromFile(file), masterKeyFromFile(file)]);
    expect(one.bytes.equals(other.bytes)).toBe(true);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect((await masterKeyFromFile(file)).id.equals(one.id)).toBe(true);
  });

  it('is refused from a file that others can read or that holds none', async () => {
    const file = path.join(directory, 'key');
    await masterKeyFromFile(file);
    await chmod(file, 0o640);
    await expect(masterKeyFromFile(file)).rejects.toMatchObject({ code: 'configuration_invalid' });
    await chmod(file, 0o600);
    const content = await readFile(file, 'utf8');
    await writeFile(file, 'something else');
    const refusal = masterKeyFromFile(file);
    await expect(refusal).rejects.toMatchObject({ code: 'configuration_invalid' });
    await expect(refusal).rejects.not.toThrow(content.trim());
  });

  // Only root can give a file away.
  it.skipIf(process.getuid?.() !== 0)('is refused from a file of another user (needs root)', async () => {
    const file = path.join(directory, 'key');
    await masterKeyFromFile(file);
    await chown(file, 65_534, 65_534);
    await expect(masterKeyFromFile(file)).rejects.toMatchObject({ code: 'configuration_invalid' });
  });

  it('comes from a value or from a passphrase with its salt', async () => {
    const bytes = randomBytes(32);
    expect(masterKeyFromValue(bytes.toString('hex')).bytes.equals(bytes)).toBe(true);
    expect(masterKeyFromValue(`${bytes.toString('base64')}\n`).bytes.equals(bytes)).toBe(true);
    expect(() => masterKeyFromValue('short')).toThrow(PolydevError);
    const salt = path.join(directory, 'salt');
    const one = await masterKeyFromPassphrase('correct horse battery', salt);
    expect((await masterKeyFromPassphrase('correct horse battery', salt)).bytes.equals(one.bytes)).toBe(true);
    expect((await masterKeyFromPassphrase('correct horse batterx', salt)).bytes.equals(one.bytes)).toBe(
      false,
    );
    const elsewhere = await masterKeyFromPassphrase('correct horse battery', path.join(directory, 'salt2'));
    expect(elsewhere.bytes.equals(one.bytes)).toBe(false);
    await expect(masterKeyFromPassphrase('short', salt)).rejects.toMatchObject({
      code: 'configuration_invalid',
    });
  });
});

/** A machine's agent as the vault sees it. */
class Channel implements CredentialChannel {
  readonly machineId = newMachineId();
  readonly put: string[] = [];
  readonly buffers: Buffer[] = [];
  reply: () => Buffer;
  status: CredentialStatus['state'] = 'complete';
  refuse: Error | undefined;

  constructor(bundle: CredentialBundle) {
    this.reply = () => Buffer.from(JSON.stringify(bundle));
  }

  async fetchCredentialFiles(): Promise<Buffer> {
    if (this.refuse !== undefined) throw this.refuse;
    const reply = this.reply();
    this.buffers.push(reply);
    return reply;
  }

  async putCredentialFiles(_provider: 'codex', bundle: Buffer): Promise<CredentialStatus> {
    if (this.refuse !== undefined) throw this.refuse;
    this.put.push(bundle.toString());
    this.buffers.push(bundle);
    return { provider: 'codex', state: this.status, facts: null, problem: null };
  }
}

describe('the vault', () => {
  let postgres: TestPostgres;
  let url: string;
  let database: OpenDatabase;
  let vault: Vault;
  let canary: string;
  const masterBytes = randomBytes(32);
  beforeAll(async () => {
    postgres = await startTestPostgres();
  });
  afterAll(() => postgres[Symbol.asyncDispose]());
  beforeEach(async () => {
    canary = `canary${randomUUID().replaceAll('-', '')}`;
    url = await postgres.createDatabase();
    database = await openDatabase({ url });
    vault = await createVault(database.db, masterKeyFrom(masterBytes));
  });
  afterEach(() => database[Symbol.asyncDispose]());

  const machineFor = async (channel: Channel, realm: 'test' | 'internet' = 'test', userId = USER) => {
    const { id } = await requestMachine(database.db, {
      id: channel.machineId,
      kind: 'browser',
      realm,
      userId,
      sessionId: newSessionId(),
      hostId: 'local',
      limits: { cpus: 1, memoryMiB: 64, pids: 32 },
      display: { width: 800, height: 600 },
    });
    return { id, realm, userId };
  };
  const ada = () => new Channel({ provider: 'codex', files: codexFiles(canary) });
  const captured = async () => {
    await machineFor(ada());
    return vault.capture(ada(), OWNER, newSessionId());
  };
  /** The error of a promise that must fail, which must not quote the credential. */
  const failureOf = async (work: Promise<unknown>): Promise<PolydevError> => {
    const error = await work.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof PolydevError)) throw new Error(`no PolydevError: ${String(error)}`);
    for (let link: unknown = error; link instanceof Error; link = link.cause) {
      expect(`${link.stack} ${JSON.stringify(link)}`).not.toContain(canary);
    }
    return error;
  };

  it('captures, keeps nothing readable, and installs', async () => {
    const from = ada();
    await machineFor(from);
    const stored = await vault.capture(from, OWNER, newSessionId());
    expect(stored).toMatchObject({ version: 1, facts: { accountId: 'acct-ada', subscription: 'plus' } });
    expect(JSON.stringify(stored)).not.toContain(canary);
    expect(await searchDatabase(url, canary)).toEqual([]);

    const to = ada();
    await vault.install(to, await machineFor(to), stored.credentialId);
    const [body] = to.put;
    expect(JSON.parse(body ?? '')).toEqual({ provider: 'codex', files: codexFiles(canary) });
    // What was in memory was overwritten.
    for (const buffer of [...from.buffers, ...to.buffers]) {
      expect(buffer.equals(Buffer.alloc(buffer.length))).toBe(true);
    }
  });

  it('captures once per session and raises the version with the next', async () => {
    await machineFor(ada());
    const session = newSessionId();
    const first = await vault.capture(ada(), OWNER, session);
    const gone = ada();
    gone.refuse = new Error('the machine is gone');
    expect(await vault.capture(gone, OWNER, session)).toEqual(first);
    const next = await vault.capture(ada(), OWNER, newSessionId());
    expect(next).toMatchObject({ credentialId: first.credentialId, version: 2 });
  });

  it('refuses what is incomplete or no bundle at all, without quoting it', async () => {
    await machineFor(ada());
    const cases = [
      JSON.stringify({ provider: 'codex', files: codexFiles(canary, { incomplete: true }) }),
      JSON.stringify({ provider: 'codex', files: [] }),
      JSON.stringify({ provider: canary, files: codexFiles(canary) }),
      `{"files": "${canary}"`,
      JSON.stringify({
        provider: 'codex',
        files: [
          {
            path: '.codex/auth.json',
            mode: 384,
            contentBase64: Buffer.from(`{"a": ${canary}`).toString('base64'),
          },
        ],
      }),
    ];
    for (const reply of cases) {
      const channel = ada();
      channel.reply = () => Buffer.from(reply);
      const error = await failureOf(vault.capture(channel, OWNER, newSessionId()));
      expect(error.code).toBe('credential_incomplete');
    }
    const talkative = ada();
    talkative.refuse = new PolydevError('internal', `cannot read ${canary}`, { lines: [canary] });
    expect((await failureOf(vault.capture(talkative, OWNER, newSessionId()))).code).toBe(
      'credential_incomplete',
    );
    expect(await searchDatabase(url, canary)).toEqual([]);
  });

  it('installs only for the same person and realm', async () => {
    const { credentialId } = await captured();
    for (const [realm, user] of [
      ['internet', USER],
      ['test', UserId.parse('bob')],
    ] as const) {
      const channel = ada();
      const error = await failureOf(
        vault.install(channel, await machineFor(channel, realm, user), credentialId),
      );
      expect(error.code).toBe('credential_install_failed');
      expect(channel.put).toEqual([]);
    }
  });

  it('lets one machine at a time hold a credential', async () => {
    const { credentialId } = await captured();
    const [one, other] = [ada(), ada()];
    const [first, second] = [await machineFor(one), await machineFor(other)];
    await vault.install(one, first, credentialId);
    await vault.install(one, first, credentialId);
    expect((await failureOf(vault.install(other, second, credentialId))).code).toBe('conflict');
    expect(other.put).toEqual([]);
    expect((await getCredential(database.db, credentialId))?.holderMachineId).toBe(first.id);
  });

  it('says by name that an agent did not take it, without repeating the agent', async () => {
    const { credentialId } = await captured();
    const channel = ada();
    const machine = await machineFor(channel);
    channel.refuse = new PolydevError('internal', `what is ${canary}?`, { lines: [canary] });
    expect((await failureOf(vault.install(channel, machine, credentialId))).code).toBe(
      'credential_install_failed',
    );
    channel.refuse = undefined;
    channel.status = 'incomplete';
    expect((await failureOf(vault.install(channel, machine, credentialId))).code).toBe(
      'credential_install_failed',
    );
    expect((await failureOf(vault.install(channel, machine, newCredentialId()))).code).toBe(
      'credential_missing',
    );
  });

  it('does not open a row that was changed, moved or rolled back', async () => {
    const { credentialId } = await captured();
    const old = await getCredential(database.db, credentialId);
    if (old === undefined) throw new Error('no row');
    await vault.capture(ada(), OWNER, newSessionId());
    const channel = ada();
    const machine = await machineFor(channel);
    const change = (set: { sealed?: Buffer; version?: number; account?: string }) =>
      database.db.updateTable('credentials').set(set).where('id', '=', credentialId).execute();
    const now = await getCredential(database.db, credentialId);
    if (now === undefined) throw new Error('no row');
    const changes = [{ sealed: old.sealed }, { version: 7 }, { account: 'work' }] as const;
    for (const set of changes) {
      await change(set);
      expect((await failureOf(vault.install(channel, machine, credentialId))).code).toBe('vault_cannot_open');
      await change({ sealed: now.sealed, version: now.version, account: now.account });
    }
    expect(channel.put).toEqual([]);
    await vault.install(channel, machine, credentialId);
  });

  it('refuses to start with another master key, and starts with the next after a rewrap', async () => {
    const { credentialId } = await captured();
    const next = masterKeyFrom(randomBytes(32));
    await expect(createVault(database.db, next)).rejects.toMatchObject({ code: 'vault_key_missing' });
    expect(await vault.rewrap(next)).toBe(1);
    expect(await vault.rewrap(next)).toBe(0);
    const renewed = await createVault(database.db, next);
    const channel = ada();
    await renewed.install(channel, await machineFor(channel), credentialId);
    expect(channel.put).toHaveLength(1);
  });

  it('derives tokens and keys that are the same in every controller and different for each purpose', async () => {
    const id = newMachineId();
    const again = await createVault(database.db, masterKeyFrom(masterBytes));
    expect(again.deriveMachineToken(id)).toEqual(vault.deriveMachineToken(id));
    expect(vault.deriveMachineToken(newMachineId()).token).not.toBe(vault.deriveMachineToken(id).token);
    expect(vault.deriveMachineToken(id).hash).toMatch(/^[0-9a-f]{64}$/);
    expect(vault.deriveKey('tickets')).toHaveLength(32);
    expect(vault.deriveKey('tickets').equals(vault.deriveKey('other'))).toBe(false);
  });
});
