/** What building an image needs from the host; `./polydev up` installs it. */
import { PolydevError } from '../../protocol/errors.ts';
import { IMAGE_PACKAGES, missingOf, namesOf } from '../packages.ts';

/** Throws `missing_packages` naming package and reason, or `not_root`. */
export function requireBuildHost(): void {
  const missing = missingOf(IMAGE_PACKAGES);
  if (missing.length > 0) {
    const names = namesOf(missing).join(' ');
    throw new PolydevError('missing_packages', `building the golden image needs: ${names}`, {
      lines: missing.map((each) => `${each.package} (${each.binary}): ${each.why}`),
    });
  }
  if (process.getuid?.() !== 0) {
    throw new PolydevError('not_root', 'building the golden image sets owners and mounts, which needs root');
  }
}
