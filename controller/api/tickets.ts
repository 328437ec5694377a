/**
 * Tickets: what opens one WebSocket on one session or machine, once, within a minute. A WebSocket cannot carry an
 * Authorization header from a browser, so the ticket travels in the query; it is never logged.
 *
 * A ticket is `base64url(claims JSON).base64url(HMAC-SHA-256)`. Spent tickets are remembered in memory until they would
 * have expired anyway. So that a restart does not forget them, the key is of one start: a ticket opens only at the
 * controller that issued it.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { MachineId, SessionId, UserId } from '../../protocol/ids.ts';
import type { Caller } from './caller.ts';

const Claims = z.strictObject({
  purpose: z.enum(['desktop', 'terminal']),
  /** The session (desktop) or machine (terminal) that it opens. */
  target: z.union([SessionId, MachineId]),
  userId: UserId,
  role: z.enum(['operator', 'user']),
  proof: z.strictObject({ kind: z.enum(['api_key', 'web_session']), id: z.string() }),
  /** Milliseconds since 1970. */
  expires: z.number().int(),
  nonce: z.string(),
});
type Claims = z.infer<typeof Claims>;

export const TICKET_LIFETIME_MS = 60_000;

export interface OpenedTicket {
  readonly target: SessionId | MachineId;
  readonly caller: Caller;
}

export interface Tickets {
  issue(
    purpose: Claims['purpose'],
    target: SessionId | MachineId,
    caller: Caller,
  ): { ticket: string; expiresAt: Date };
  /**
   * Checks and spends a ticket.
   * @throws PolydevError ticket_invalid when it is malformed, forged, of another purpose, too old or spent
   */
  open(purpose: Claims['purpose'], ticket: string): OpenedTicket;
}

/** @param key at least 32 secret bytes */
export function createTickets(key: Uint8Array, now: () => number = Date.now): Tickets {
  if (key.byteLength < 32) {
    throw new PolydevError('configuration_invalid', 'the key of the tickets must have at least 32 bytes');
  }
  /** Signature → when it may be forgotten. */
  const spent = new Map<string, number>();
  const ownKey = createHmac('sha256', key).update(randomBytes(32)).digest();
  const sign = (body: string) => createHmac('sha256', ownKey).update(body).digest();
  const invalid = (why: string) => new PolydevError('ticket_invalid', `the ticket ${why}`);

  return {
    issue(purpose, target, caller) {
      const expires = now() + TICKET_LIFETIME_MS;
      const claims: Claims = {
        purpose,
        target,
        userId: caller.userId,
        role: caller.role,
        proof: { ...caller.proof },
        expires,
        nonce: randomBytes(16).toString('base64url'),
      };
      const body = Buffer.from(JSON.stringify(claims)).toString('base64url');
      return { ticket: `${body}.${sign(body).toString('base64url')}`, expiresAt: new Date(expires) };
    },

    open(purpose, ticket) {
      const [body, signature, ...rest] = ticket.split('.');
      if (body === undefined || signature === undefined || rest.length > 0) throw invalid('is malformed');
      const expected = sign(body);
      const given = Buffer.from(signature, 'base64url');
      if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw invalid('is not ours');
      const claims = Claims.parse(JSON.parse(Buffer.from(body, 'base64url').toString('utf8')));
      if (claims.purpose !== purpose) throw invalid('is for another purpose');
      const time = now();
      if (claims.expires <= time) throw invalid('is too old');
      // Keyed by the decoded bytes: base64url has several spellings of the same signature.
      const name = expected.toString('hex');
      if (spent.has(name)) throw invalid('was used before');
      for (const [old, until] of spent) if (until <= time) spent.delete(old);
      spent.set(name, claims.expires);
      const { target, userId, role, proof } = claims;
      return { target, caller: { userId, role, proof } };
    },
  };
}
