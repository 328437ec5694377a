/**
 * vault/: the only code that sees a plaintext credential outside a machine. Plaintext enters from an agent in
 * `capture`, leaves to an agent in `install`, and is nowhere else: no log, no error, no return value.
 */
import { createHash, hkdfSync } from 'node:crypto';
import { CredentialBundle, type CredentialFacts, type CredentialFile } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import {
  type CredentialId,
  type MachineId,
  newCredentialId,
  type SessionId,
  type UserId,
} from '../../protocol/ids.ts';
import type { Realm } from '../../protocol/machine.ts';
import { providers } from '../../providers/index.ts';
import type { CredentialChannel } from '../hosts/agent-client.ts';
import { parseJson } from '../hosts/http.ts';
import { recordAudit } from '../store/audit.ts';
import {
  type CredentialOwner,
  claimHolder,
  getCredential,
  listCredentialIds,
  lockCredential,
  lockCredentialOf,
  recordInstalled,
  replaceSealed,
  saveCredential,
} from '../store/credentials.ts';
import type { Database } from '../store/tables.ts';
import { isSealedWith, open, rewrap, seal } from './envelope.ts';
import type { MasterKey } from './master-key.ts';

export interface Captured {
  readonly credentialId: CredentialId;
  readonly version: number;
  readonly facts: CredentialFacts;
}

export interface Vault {
  /** The token that the agent of a machine accepts, and its SHA-256 (hex) for the machine's configuration. */
  deriveMachineToken(id: MachineId): { token: string; hash: string };
  /** 32 bytes for a purpose outside the vault, for example `tickets`; the same in every controller. */
  deriveKey(purpose: string): Buffer;
  /**
   * Fetches the credential of a finished login from the browser machine, checks it, seals it and stores it as a new
   * version. Repeatable: once stored for a session, it is found again and the machine is not asked.
   * @param onChecked after the check and before anything is stored
   * @throws credential_incomplete, machine_unreachable
   */
  capture(
    channel: CredentialChannel,
    owner: CredentialOwner,
    sessionId: SessionId,
    options?: { onChecked?: () => Promise<void>; signal?: AbortSignal },
  ): Promise<Captured>;
  /**
   * Opens a credential and puts it into a machine of the same person and realm, which becomes its holder.
   * @throws conflict while another machine holds it
   * @throws credential_missing, credential_install_failed, vault_cannot_open
   */
  install(
    channel: CredentialChannel,
    machine: { id: MachineId; userId: UserId; realm: Realm },
    credentialId: CredentialId,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Wraps every data key with another master key. Resumable: what is done is skipped. Gives how many were changed. */
  rewrap(next: MasterKey): Promise<number>;
}

/**
 * @throws vault_key_missing when what is stored was sealed with another master key
 */
export async function createVault(db: Database, master: MasterKey): Promise<Vault> {
  for (const id of await listCredentialIds(db)) {
    const row = await getCredential(db, id);
    if (row !== undefined && !isSealedWith(master, row.sealed)) {
      throw new PolydevError('vault_key_missing', `credential ${id} was sealed with another master key`);
    }
  }
  const derive = (info: string) => Buffer.from(hkdfSync('sha256', master.bytes, Buffer.alloc(0), info, 32));

  return {
    deriveMachineToken(id) {
      const token = derive(`polydev/machine-token/v1/${id}`).toString('base64url');
      return { token, hash: createHash('sha256').update(token).digest('hex') };
    },

    deriveKey: (purpose) => derive(`polydev/purpose/v1/${purpose}`),

    async capture(channel, owner, sessionId, { onChecked, signal } = {}) {
      const before = await db.transaction().execute((tx) => lockCredentialOf(tx, owner));
      if (before?.capturedBy === sessionId) {
        await onChecked?.();
        return { credentialId: before.id, version: before.version, facts: before.facts };
      }
      const reply = await guarded('credential_incomplete', 'the credential could not be fetched', () =>
        channel.fetchCredentialFiles(owner.provider, signal),
      );
      let plaintext: Buffer | undefined;
      try {
        const { files, facts } = check(owner, reply);
        await onChecked?.();
        plaintext = Buffer.from(JSON.stringify({ files }));
        return await store(db, master, owner, sessionId, plaintext, facts);
      } finally {
        reply.fill(0);
        plaintext?.fill(0);
      }
    },

    async install(channel, machine, credentialId, signal) {
      const row = await getCredential(db, credentialId);
      if (row === undefined)
        throw new PolydevError('credential_missing', `there is no credential ${credentialId}`);
      if (row.realm !== machine.realm || row.userId !== machine.userId) {
        throw new PolydevError(
          'credential_install_failed',
          `credential ${row.id} is of ${row.userId} in realm ${row.realm}, machine ${machine.id} of ${machine.userId} in realm ${machine.realm}`,
        );
      }
      const plaintext = open(master, row, row.sealed);
      let body: Buffer | undefined;
      try {
        // Holder first: a crash between the two leaves a holder without the file, never two with it.
        if (!(await claimHolder(db, row.id, machine.id))) {
          throw new PolydevError('conflict', `another machine holds credential ${row.id}`);
        }
        const bundle = CredentialBundle.pick({ files: true }).safeParse(parseJson(plaintext));
        if (!bundle.success)
          throw new PolydevError('vault_cannot_open', `credential ${row.id} is not a bundle`);
        const { files } = bundle.data;
        const extra = providers[row.provider].installs(files);
        body = Buffer.from(JSON.stringify({ provider: row.provider, files: [...files, ...extra] }));
        const content = body;
        const status = await guarded(
          'credential_install_failed',
          'the agent did not take the credential',
          () => channel.putCredentialFiles(row.provider, content, signal),
        );
        if (status.state !== 'complete') {
          throw new PolydevError(
            'credential_install_failed',
            `machine ${machine.id} says that the installed credential is ${status.state}`,
          );
        }
        await recordInstalled(db, row.id, machine.id, row.version);
        await recordAudit(db, {
          who: 'system',
          action: 'credential.install',
          target: `${row.id} ${machine.id}`,
        });
      } finally {
        plaintext.fill(0);
        body?.fill(0);
      }
    },

    async rewrap(next) {
      let changed = 0;
      for (const id of await listCredentialIds(db)) {
        await db.transaction().execute(async (tx) => {
          const row = await lockCredential(tx, id);
          if (row === undefined || isSealedWith(next, row.sealed)) return;
          await replaceSealed(tx, id, rewrap(master, next, row, row.sealed));
          changed++;
        });
      }
      await recordAudit(db, { who: 'system', action: 'vault.rewrap', target: next.id.toString('hex') });
      return changed;
    },
  };
}

/** The provider's own files, complete and with the modes it wants; anything else in the reply is left out. */
function check(owner: CredentialOwner, reply: Buffer): { files: CredentialFile[]; facts: CredentialFacts } {
  const parsed = CredentialBundle.safeParse(parseJson(reply));
  if (!parsed.success || parsed.data.provider !== owner.provider) {
    throw new PolydevError('credential_incomplete', 'the machine gave no bundle of credential files');
  }
  const { credential } = providers[owner.provider];
  const files: CredentialFile[] = [];
  for (const { path, mode, required } of credential.files) {
    const file = parsed.data.files.find((candidate) => candidate.path === path);
    if (file !== undefined) files.push({ ...file, mode });
    else if (required) throw new PolydevError('credential_incomplete', `${path} is missing`);
  }
  const result = credential.check(files);
  if (result.state === 'incomplete') throw new PolydevError('credential_incomplete', result.problem);
  return { files, facts: result.facts };
}

async function store(
  db: Database,
  master: MasterKey,
  owner: CredentialOwner,
  sessionId: SessionId,
  plaintext: Buffer,
  facts: CredentialFacts,
): Promise<Captured> {
  return db.transaction().execute(async (tx) => {
    const last = await lockCredentialOf(tx, owner);
    const { userId, provider, account, realm } = owner;
    const identity = {
      userId,
      provider,
      account,
      realm,
      id: last?.id ?? newCredentialId(),
      version: (last?.version ?? 0) + 1,
    };
    await saveCredential(tx, {
      ...identity,
      sealed: seal(master, identity, plaintext),
      facts,
      capturedBy: sessionId,
    });
    await recordAudit(tx, { who: 'system', action: 'credential.capture', target: identity.id });
    return { credentialId: identity.id, version: identity.version, facts };
  });
}

/** What an agent says about a credential may quote it: only the code of its error goes on. */
async function guarded<T>(
  code: 'credential_incomplete' | 'credential_install_failed',
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const said = PolydevError.from(error, 'machine_unreachable').code;
    const kept =
      said === 'machine_unreachable' || said === 'agent_unauthorized' || said === 'host_unreachable';
    throw new PolydevError(kept ? said : code, `${what}: ${said}`);
  }
}
