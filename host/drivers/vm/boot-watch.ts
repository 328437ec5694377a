/** What the host sees of a guest's boot on its console, long before there is anybody to ask. */
import type { Stamp } from '../../../protocol/machine.ts';
import type { LineWatch } from '../../machines/console.ts';

const KERNEL = 'Linux version ';
const INIT = 'polydev-init: ';

/** What the kernel says with apic=verbose. */
const MEASURED = /\.\.\.\.\. host bus clock speed is (\d+\.\d+) MHz\./;

/** MHz of what the local timer of a processor counts, as the kernel has measured it; undefined when this line does not say it. */
export function timerIn(line: string): number | undefined {
  const [, megahertz] = MEASURED.exec(line) ?? [];
  return megahertz === undefined ? undefined : Number(megahertz);
}

export interface BootSeen {
  /** Of this boot; what is seen is added. */
  readonly stamps: Stamp[];
  /** The stamps have changed: writes them down. */
  readonly keep: () => Promise<void>;
  /** The kernel says its first words; its first program runs. Absent: nobody wants to know. */
  readonly onKernel?: { began: () => void; through: () => void };
  /** The kernel has measured its timer. Absent: nobody wants to know. */
  readonly onTimer?: (megahertz: number) => void;
}

/** To be told the lines of a guest that boots. Its first program is the last of interest. */
export function watchBoot({ stamps, keep, onKernel, onTimer }: BootSeen): LineWatch {
  const stamp = (checkpoint: 'kernel' | 'init', at: Date): void => {
    // A guest that was started again has been there before.
    if (stamps.some((known) => known.checkpoint === checkpoint)) return;
    stamps.push({ checkpoint, at: at.toISOString() });
    // Without it a later host service knows less of the boot.
    void keep().catch(() => undefined);
  };
  return (line, at) => {
    if (line.includes(KERNEL)) {
      stamp('kernel', at);
      onKernel?.began();
    }
    const megahertz = timerIn(line);
    if (megahertz !== undefined) onTimer?.(megahertz);
    if (!line.includes(INIT)) return 'more';
    onKernel?.through();
    // One that said nothing of itself runs all the same.
    stamp('kernel', at);
    stamp('init', at);
    return 'enough';
  };
}

/** The hypervisor is known to run now: it did when the guest first spoke. */
export function stampHypervisor(stamps: Stamp[]): void {
  const now = Date.now();
  const first = stamps[0] === undefined ? now : Date.parse(stamps[0].at);
  stamps.unshift({ checkpoint: 'hypervisor', at: new Date(Math.min(first, now)).toISOString() });
}
