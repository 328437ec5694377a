/** What can be known to fail before minutes were spent on an image: a port that is taken, files that cannot be read. */
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { MountablePath } from '../host/config.ts';
import { PolydevError } from '../protocol/errors.ts';
import type { Settings } from './settings.ts';

/** Throws `configuration_invalid` when the address cannot be listened on. */
export async function checkPort({ port, bind }: { port: number; bind: string }): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ port, host: bind }, resolve);
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why =
      code === 'EADDRINUSE'
        ? `port ${port} of ${bind} is used by another program; choose another with --port`
        : `cannot listen on port ${port} of ${bind} (${message}); choose another with --port or --bind`;
    throw new PolydevError('configuration_invalid', why, { cause: error });
  } finally {
    server.close();
  }
}

/** Throws `configuration_invalid` when a folder has a name that the host service would refuse. */
export function checkPaths({ dataDir, cacheDir }: Settings): void {
  for (const [name, place] of [
    ['data directory (--data)', dataDir],
    ['cache directory (POLYDEV_CACHE)', cacheDir],
  ] as const) {
    const parsed = MountablePath.safeParse(place);
    if (parsed.success) continue;
    const why = parsed.error.issues.map(({ message }) => message).join('; ');
    throw new PolydevError('configuration_invalid', `${name} ${place}: ${why}`);
  }
}

/**
 * Looks whether others than root can read the checkout and run Node. The folders above the checkout do not matter: the
 * controller gets a view of its own. Throws `configuration_invalid` with the command that helps.
 */
export async function checkReadable(checkout: string, nodePath: string = process.execPath): Promise<void> {
  const inside = [
    '.',
    'package.json',
    'controller',
    'controller/main.ts',
    'node_modules',
    'node_modules/zod',
  ];
  for (const name of inside) {
    const place = path.join(checkout, name);
    const found = await stat(place);
    const wanted = found.isDirectory() ? 0o005 : 0o004;
    if ((found.mode & wanted) === wanted) continue;
    throw new PolydevError(
      'configuration_invalid',
      `${place} can be read by its owner only, and the controller runs as another user. Run: chmod -R go+rX ${checkout}`,
    );
  }
  for (let place = path.resolve(nodePath); ; place = path.dirname(place)) {
    if (((await stat(place)).mode & 0o001) === 0) {
      throw new PolydevError(
        'configuration_invalid',
        `${place} is closed for other users, and the controller must be able to run ${nodePath}: set POLYDEV_CACHE to a folder that everybody can enter, or run: chmod go+x ${place}`,
      );
    }
    if (place === path.dirname(place)) return;
  }
}
