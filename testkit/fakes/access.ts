/** Keys, sign-in links, browser sessions and the audit log in memory, for tests of the API. */
import { randomBytes } from 'node:crypto';
import type { Access, AuditLog, Caller, Role } from '../../controller/api/caller.ts';
import { UserId } from '../../protocol/ids.ts';

const secret = (prefix: string) => `${prefix}_${randomBytes(24).toString('base64url')}`;

export class FakeAccess implements Access {
  readonly #keys = new Map<string, Caller>();
  readonly #links = new Map<string, { userId: UserId; role: Role }>();
  readonly #sessions = new Map<string, Caller>();

  addKey(userId: string, role: Role): string {
    const token = secret('pdk');
    const id = secret('k');
    this.#keys.set(token, { userId: UserId.parse(userId), role, proof: { kind: 'api_key', id } });
    return token;
  }

  addSession(userId: string, role: Role): { token: string; caller: Caller } {
    const token = secret('pdw');
    const caller: Caller = {
      userId: UserId.parse(userId),
      role,
      proof: { kind: 'web_session', id: secret('w') },
    };
    this.#sessions.set(token, caller);
    return { token, caller };
  }

  revokeKey(token: string): void {
    this.#keys.delete(token);
  }

  apiKey = async (token: string) => this.#keys.get(token);
  webSession = async (token: string) => this.#sessions.get(token);

  createSignInLink = async (userId: UserId, role: Role) => {
    const token = secret('pdl');
    this.#links.set(token, { userId, role });
    return { token, expiresAt: new Date(Date.now() + 60_000) };
  };

  consumeSignInLink = async (token: string) => {
    const identity = this.#links.get(token);
    if (identity === undefined) return undefined;
    this.#links.delete(token);
    const { token: sessionToken, caller } = this.addSession(identity.userId, identity.role);
    return { sessionToken, caller, expiresAt: new Date(Date.now() + 3_600_000) };
  };

  endWebSession = async (id: string) => {
    for (const [token, caller] of this.#sessions) if (caller.proof.id === id) this.#sessions.delete(token);
  };

  holds = async ({ kind, id }: Caller['proof']) => {
    const callers = kind === 'api_key' ? this.#keys : this.#sessions;
    return [...callers.values()].some((caller) => caller.proof.id === id);
  };
}

export class FakeAuditLog implements AuditLog {
  readonly entries: { caller: Caller; action: string; target: string }[] = [];
  record = async (entry: { caller: Caller; action: string; target: string }) => {
    this.entries.push(entry);
  };
}
