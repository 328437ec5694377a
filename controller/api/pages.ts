/** The dashboard's files. What is not a file and not part of the API is a place in the page: index.html answers. */
import { access } from 'node:fs/promises';
import path from 'node:path';
import fastifyStatic from '@fastify/static';
import { PolydevError } from '../../protocol/errors.ts';
import type { Api } from './context.ts';

/** Prefixes where an unknown path is an error and never a page. */
const NOT_PAGES = ['/api/', '/assets/', '/health', '/ready', '/metrics', '/openapi.json'];

/** @param webDist folder with the built dashboard: index.html, and files with a hash in their names in assets/ */
export async function addPages(app: Api, webDist: string): Promise<void> {
  // The page and its scripts hold nothing of anybody; whoever is not signed in must see how to sign in.
  app.addHook('onRoute', (route) => {
    if (route.url === '/*') route.config = { ...route.config, gate: 'public' };
  });
  await app.register(fastifyStatic, {
    root: path.resolve(webDist),
    // It may be built while the controller runs.
    suppressWarning: true,
    index: ['index.html'],
    dotfiles: 'ignore',
    cacheControl: false,
    setHeaders: (reply, file) => {
      const hashed = path.relative(webDist, file).startsWith(`assets${path.sep}`);
      reply.header('cache-control', hashed ? 'public, max-age=31536000, immutable' : 'no-cache');
    },
  });

  app.setNotFoundHandler(async (request, reply) => {
    const [pathname = '/'] = request.url.split('?', 1);
    const wantsPage = request.method === 'GET' || request.method === 'HEAD';
    if (request.ws || !wantsPage || NOT_PAGES.some((prefix) => pathname.startsWith(prefix))) {
      throw new PolydevError('not_found', `${request.method} ${pathname} does not exist`);
    }
    const built = await access(path.join(webDist, 'index.html')).then(
      () => true,
      () => false,
    );
    if (!built) throw new PolydevError('not_found', 'the dashboard is not built');
    return reply.sendFile('index.html');
  });
}
