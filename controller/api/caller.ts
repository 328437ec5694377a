/**
 * Who is calling, and what they may reach. The two ways in for now are API keys and browser sessions; another one
 * (for example a Supabase JWT) is one more `Authenticator` in the list that `buildApi` is given.
 */
import type { FastifyRequest } from 'fastify';
import { PolydevError } from '../../protocol/errors.ts';
import { UserId } from '../../protocol/ids.ts';

export type Role = 'operator' | 'user';

/** How the caller proved who they are; `id` names the key or the browser session and is no secret. */
export interface Proof {
  readonly kind: 'api_key' | 'web_session';
  readonly id: string;
}

export interface Caller {
  /** Whom the caller acts as when it names nobody. */
  readonly userId: UserId;
  readonly role: Role;
  readonly proof: Proof;
}

/** The person an operator acts as unless it names another. */
export const OPERATOR = UserId.parse('operator');

export interface Authenticator {
  readonly name: string;
  /**
   * The caller, or undefined when the request carries nothing of this kind.
   * @throws PolydevError unauthenticated when it carries something that does not hold.
   */
  authenticate(request: FastifyRequest): Promise<Caller | undefined>;
}

/** What the API needs of the tables of keys, sign-in links and browser sessions. Tokens are stored as hashes. */
export interface Access {
  apiKey(token: string): Promise<Caller | undefined>;
  webSession(token: string): Promise<Caller | undefined>;
  /** A fresh one-time link token. */
  createSignInLink(userId: UserId, role: Role): Promise<{ token: string; expiresAt: Date }>;
  /** Spends the link and opens a browser session; undefined when the link is unknown, spent or too old. */
  consumeSignInLink(
    token: string,
  ): Promise<{ sessionToken: string; expiresAt: Date; caller: Caller } | undefined>;
  endWebSession(id: string): Promise<void>;
  /** False once the key or session that opened a stream was revoked or has expired. */
  holds(proof: Proof): Promise<boolean>;
}

export interface AuditLog {
  /** `target` is the id of the object, for example of a session; never a secret. */
  record(entry: { caller: Caller; action: string; target: string }): Promise<void>;
}

/** The caller of a route that is not public; a missing one is a mistake in the route table, not of the caller. */
export function callerOf(request: FastifyRequest): Caller {
  if (request.caller === null) throw new PolydevError('unauthenticated', 'this call needs an identity');
  return request.caller;
}

/**
 * The person a call is about: the one named, else the caller itself.
 * @throws PolydevError forbidden when somebody who is not an operator names another person.
 */
export function actingFor(caller: Caller, named: UserId | undefined): UserId {
  if (named === undefined || named === caller.userId) return caller.userId;
  if (caller.role !== 'operator') {
    throw new PolydevError('forbidden', 'only an operator may name another person');
  }
  return named;
}

/** The filter of a list: an operator sees everybody unless it names one person, a user sees only their own. */
export function listFilter(caller: Caller, named: UserId | undefined): { userId?: UserId } {
  if (caller.role === 'operator' && named === undefined) return {};
  return { userId: actingFor(caller, named) };
}

/**
 * The object, if the caller may reach it. Somebody else's object answers like one that does not exist, so that ids
 * cannot be probed.
 * @throws PolydevError not_found
 */
export function owned<T extends { readonly userId: UserId }>(
  caller: Caller,
  object: T | undefined,
  what: string,
): T {
  if (object !== undefined && (caller.role === 'operator' || object.userId === caller.userId)) return object;
  throw new PolydevError('not_found', `no such ${what}`);
}
