/** What building an image needs from the host; `./polydev up` installs it. */
import { PolydevError } from '../../protocol/errors.ts';
import { IMAGE_PACKAGES, missingOf, namesOf, ROOTLESS_PACKAGES } from '../packages.ts';

const isRoot = (): boolean => process.getuid?.() === 0;

/** Throws `missing_packages` naming package and reason. */
export function requireBuildHost(): void {
  const missing = missingOf(isRoot() ? IMAGE_PACKAGES : [...IMAGE_PACKAGES, ...ROOTLESS_PACKAGES]);
  if (missing.length > 0) {
    const names = namesOf(missing).join(' ');
    throw new PolydevError('missing_packages', `building the golden image needs: ${names}`, {
      lines: missing.map((each) => `${each.package} (${each.binary}): ${each.why}`),
    });
  }
}

/** Throws `not_root` saying what of an image needs root. */
export function requireRoot(what: string): void {
  if (!isRoot()) throw new PolydevError('not_root', `${what}, which needs root: run it with sudo`);
}
