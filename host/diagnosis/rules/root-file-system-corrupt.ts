/** A disk is there, and the kernel cannot mount what is on it. */
import { exitLine, linesOf, proof, type Rule } from '../rule.ts';

export const rootFileSystemCorrupt: Rule = {
  name: 'root_file_system_corrupt',
  prove(found) {
    const failed = linesOf(
      found,
      'console.log',
      /polydev-init: FAILED: (mount (the private disk|the root)|the config drive)/,
    );
    if (failed.length === 0) return undefined;
    return proof(
      ...linesOf(found, 'console.log', /EXT4-fs|erofs:|overlayfs:|mount: mounting/),
      ...failed,
      ...exitLine(found),
    );
  },
};
