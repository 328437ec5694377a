/** The optional control socket of the test identity provider: is it alive, and what was asked of it lately? Read only. */
import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { LogLine } from './server.ts';

/** What the socket shows: the readiness line under `GET /health`, the newest request lines under `GET /requests`. */
export interface Shown {
  ready: object;
  recent: readonly LogLine[];
}

/**
 * Listens on the unix socket `path` (mode 0600; a leftover of a killed run is replaced).
 *
 * @throws when the socket cannot be made.
 */
export async function startControl(path: string, shown: Shown): Promise<AsyncDisposable> {
  await rm(path, { force: true });
  const server = createServer((request, response) => {
    const shows: Record<string, unknown> = { '/health': shown.ready, '/requests': shown.recent };
    const value = request.method === 'GET' ? shows[request.url ?? ''] : undefined;
    response.writeHead(value ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value ?? { error: 'not found' }));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  await chmod(path, 0o600);
  return {
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}
