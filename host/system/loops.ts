/** Loop devices: files that the kernel shows as disks. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface LoopDevice {
  /** For example loop3. */
  name: string;
  /** The file behind it, also when that was removed since. */
  file: string;
}

/** Those that have a file behind them. Source: loop/backing_file below /sys/block. */
export function loopDevices(): LoopDevice[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .flatMap((name) => {
      try {
        const text = readFileSync(join('/sys/block', name, 'loop/backing_file'), 'utf8').trimEnd();
        return [{ name, file: text.replace(/ \(deleted\)$/, '') }];
      } catch {
        return []; // free
      }
    });
}
