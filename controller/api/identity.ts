/** API keys, browser sessions, and the rule against cross-site requests. */
import type { FastifyRequest } from 'fastify';
import { PolydevError } from '../../protocol/errors.ts';
import type { Access, Authenticator } from './caller.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

export function sessionCookieName(secure: boolean): string {
  // The prefix makes browsers refuse the cookie unless it is Secure, for the whole host and for this host only.
  return secure ? '__Host-polydev_session' : 'polydev_session';
}

/** `Authorization: Bearer pdk_...`. Other schemes and tokens are left to the other authenticators. */
export function apiKeyAuthenticator(access: Access): Authenticator {
  return {
    name: 'api_key',
    async authenticate(request) {
      const token = /^Bearer (pdk_\S+)$/.exec(request.headers.authorization ?? '')?.[1];
      if (token === undefined) return undefined;
      const caller = await access.apiKey(token);
      if (caller === undefined) throw new PolydevError('unauthenticated', 'this API key is not valid');
      return caller;
    },
  };
}

/** The cookie that a sign-in link set. An unsafe call with it must come from our own pages. */
export function webSessionAuthenticator(access: Access, publicUrl: URL | undefined): Authenticator {
  const name = sessionCookieName(publicUrl?.protocol === 'https:');
  return {
    name: 'web_session',
    async authenticate(request) {
      const token = request.cookies[name];
      if (token === undefined) return undefined;
      const caller = await access.webSession(token);
      if (caller === undefined) {
        throw new PolydevError('unauthenticated', 'this browser session has ended; open a new sign-in link');
      }
      if (!SAFE_METHODS.has(request.method)) requireSameOrigin(request, publicUrl);
      return caller;
    },
  };
}

/**
 * Refuses a request that another site's page made the browser send. Browsers say where a request comes from in
 * Sec-Fetch-Site; older ones in Origin. A request with neither, but with the cookie, is refused too.
 * @throws PolydevError forbidden
 */
function requireSameOrigin(request: FastifyRequest, publicUrl: URL | undefined): void {
  const site = request.headers['sec-fetch-site'];
  const origin = request.headers.origin;
  const sameOrigin =
    site !== undefined
      ? site === 'same-origin'
      : origin !== undefined && isOwnOrigin(origin, request.host, publicUrl);
  if (!sameOrigin) {
    throw new PolydevError(
      'forbidden',
      'a call with the browser session must come from the dashboard itself',
    );
  }
}

function isOwnOrigin(origin: string, host: string, publicUrl: URL | undefined): boolean {
  if (publicUrl !== undefined) return origin === publicUrl.origin;
  return URL.canParse(origin) && new URL(origin).host === host;
}
