/**
 * Tokens of the test identity provider. Each holds the canary literally, so that a search for that one string finds
 * every copy of any token, wherever it leaked to.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** Shape of a canary: long enough to be unmistakable, and only characters that survive inside a JWT. */
export const CANARY = /^[A-Za-z0-9_-]{8,64}$/;

/** Access tokens live this long, in seconds. Far above the CLI's refresh margin of 5 minutes: inside it the CLI loops. */
export const ACCESS_TTL_S = 3_600;

/** Claims of a JWT. */
export type Claims = Record<string, unknown>;

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const mac = (key: string, text: string) => createHmac('sha256', key).update(text).digest('base64url');

/** Makes and recognises tokens; one per running provider. */
export class TokenMint {
  readonly #key: string;
  readonly #canary: string;

  /** @throws RangeError when the canary has another shape than {@link CANARY}. */
  constructor(key: string, canary: string) {
    if (!CANARY.test(canary)) throw new RangeError(`a canary must match ${CANARY}`);
    this.#key = key;
    this.#canary = canary;
  }

  /**
   * A JWT that lives `ttl` seconds. Its signature part is the canary, padding, and the HMAC: the CLIs do not verify
   * signatures (seen: they never fetch keys), and base64 of a payload would hide the canary from a plain search.
   */
  jwt(claims: Claims, ttl: number): string {
    const iat = Math.floor(Date.now() / 1000);
    const head = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ ...claims, iat, exp: iat + ttl, jti: randomBytes(8).toString('hex') })}`;
    const signature = `${this.#canary}${mac(this.#key, head)}`;
    // base64 text never has 4n+1 characters; some decoders refuse it.
    return `${head}.${signature.length % 4 === 1 ? `A${signature}` : signature}`;
  }

  /** The claims of a JWT that this provider made and that has not run out. */
  verify(token: string): Claims | undefined {
    const [header, payload, signature] = token.split('.');
    if (!header || !payload || !signature) return undefined;
    const expected = Buffer.from(mac(this.#key, `${header}.${payload}`));
    const given = Buffer.from(signature.slice(-expected.length));
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
    const claims: Claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    return typeof claims.exp === 'number' && claims.exp * 1000 > Date.now() ? claims : undefined;
  }

  /** An opaque refresh token. */
  refreshToken(): string {
    return `rt_${this.#canary}_${randomBytes(24).toString('base64url')}`;
  }
}

/** A short random id for URLs, hidden fields and codes; 192 bits. */
export function randomId(): string {
  return randomBytes(24).toString('base64url');
}
