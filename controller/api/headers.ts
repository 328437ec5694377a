/** The response headers that every reply carries, in one place. */
import type { FastifyInstance, FastifyReply } from 'fastify';

/**
 * What the dashboard needs and nothing else. `style-src-elem 'unsafe-inline'`: xterm.js writes its colours and cell
 * sizes into <style> elements that it makes at run time. `img-src data:`: noVNC's cursor is an image in a data URL.
 */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'self'",
  "script-src 'self'",
  "style-src 'self'",
  "style-src-elem 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'self'",
].join('; ');

const HEADERS = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'SAMEORIGIN',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

/** For replies that no hook sees, see `frameworkErrors`. */
export function setSecurityHeaders(reply: FastifyReply): void {
  reply.headers(HEADERS);
}

export function addSecurityHeaders(app: FastifyInstance, options: { https: boolean }): void {
  app.addHook('onRequest', async (request, reply) => {
    setSecurityHeaders(reply);
    if (options.https) reply.header('strict-transport-security', 'max-age=31536000');
    if (request.url.startsWith('/api/') || request.url.startsWith('/sign-in')) {
      reply.header('cache-control', 'no-store');
    }
  });
}
