import { createHash, timingSafeEqual } from 'node:crypto';
import { PolydevError } from '../../protocol/errors.ts';

/** Throws `unauthenticated` unless `header` is `Bearer <token>` and the token's SHA-256 is `tokenHash` (hex). */
export function authenticate(header: string | undefined, tokenHash: string): void {
  const token = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(header ?? '')?.[1];
  const expected = Buffer.from(tokenHash, 'hex');
  const given = createHash('sha256')
    .update(token ?? '')
    .digest();
  if (token === undefined || expected.length !== given.length || !timingSafeEqual(expected, given)) {
    throw new PolydevError('unauthenticated', 'the agent token is missing or wrong');
  }
}
