import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';
import type { Provider } from '../../providers/provider.ts';

/** Throws unless every provider's CLI is there and can be executed. `searchPath` is a PATH. */
export function checkProviders(providers: readonly Provider[], searchPath: string): void {
  const missing = providers.filter((provider) => {
    const [file] = provider.login.command.argv;
    return file === undefined || findProgram(file, searchPath) === undefined;
  });
  if (missing.length === 0) return;
  const names = missing.map((provider) => `${provider.title} (${provider.login.command.argv[0]})`);
  throw new PolydevError('image_verification_failed', `not installed in the image: ${names.join(', ')}`);
}

/** Where a program is, by the rules of execvp. */
export function findProgram(file: string, searchPath: string): string | undefined {
  const places = file.includes('/') ? [file] : searchPath.split(':').map((place) => path.join(place, file));
  return places.find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return statSync(place).isFile();
    } catch {
      return false;
    }
  });
}
