import { get } from 'node:http';
import { PolydevError } from '../../protocol/errors.ts';

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

/** `text` as the callback of the login whose page is `loginUrl`, when it is one: same port and path, on loopback. */
export function asCallback(text: string, loginUrl: URL | undefined): URL | undefined {
  const expected = loginUrl?.searchParams.get('redirect_uri');
  if (!expected || !URL.canParse(expected) || !URL.canParse(text)) return undefined;
  const [redirect, given] = [new URL(expected), new URL(text)];
  const same =
    given.protocol === 'http:' && given.port === redirect.port && given.pathname === redirect.pathname;
  return same && LOOPBACK.has(redirect.hostname) && LOOPBACK.has(given.hostname) ? given : undefined;
}

/**
 * Delivers a callback that the person's own browser could not: asks for it on loopback and follows redirects there, as
 * the CLI waits for its last page to be fetched. The answers are thrown away; one of the addresses holds a token.
 */
export async function deliverCallback(url: URL, signal: AbortSignal): Promise<void> {
  let next: URL | undefined = url;
  for (let hop = 0; next !== undefined && hop < 4; hop += 1) {
    const at: URL = next;
    next = await new Promise<URL | undefined>((resolve, reject) => {
      const request = get(
        { host: '127.0.0.1', port: at.port, path: `${at.pathname}${at.search}`, signal, timeout: 30_000 },
        (response) => {
          response.resume();
          response.once('end', () => {
            const { location } = response.headers;
            const to =
              location !== undefined && URL.canParse(location, at) ? new URL(location, at) : undefined;
            resolve(to !== undefined && to.port === at.port && LOOPBACK.has(to.hostname) ? to : undefined);
          });
          response.once('error', reject);
        },
      );
      request.once('timeout', () => request.destroy(new Error('no answer')));
      request.once('error', (cause) =>
        reject(new PolydevError('login_cli_failed', 'the CLI does not take the callback', { cause })),
      );
    });
  }
}
