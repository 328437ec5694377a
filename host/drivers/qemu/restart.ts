/** Starts a guest again whose kernel has measured its timer while the host had no time for it, or has hung under emulation. */
import { Qmp } from './qmp.ts';

/**
 * MHz. QEMU's local timer counts nanoseconds. The kernel compares it for 0.1 s with the clock that it was told of, and has no other way: the
 * machine type has no timer besides. When the host stops the emulated processor meanwhile, it measures anything from nothing at
 * all, does without a timer then, and waits for ever as soon as it waits (seen at a load of 14, with Linux 6.1 and QEMU 7.2), to
 * several times too much, and everything in the guest that waits is as many times late.
 */
const RIGHT = { least: 250, most: 2000 };
export const RIGHT_MHZ = 1000;
export const isTimerRight = (megahertz: number): boolean =>
  megahertz >= RIGHT.least && megahertz <= RIGHT.most;

/** A host that is too busy so many times in a row is too busy. */
export const STARTS = 6;
const QMP_MS = 20_000;

/** To be told what each start of this guest measured. One that never measures right ends: without a timer it would only hang. */
export function keepTimerRight(qmpPath: string, say: (line: string) => void): (megahertz: number) => void {
  let starts = 0;
  return (megahertz) => {
    starts += 1;
    if (isTimerRight(megahertz)) return;
    const again = starts < STARTS;
    say(
      `the guest's kernel measured its timer at ${megahertz} MHz, and it runs at ${RIGHT_MHZ}: ` +
        (again
          ? `it is started again (${starts} of ${STARTS - 1})`
          : `it is given up after ${STARTS} starts`),
    );
    void (again ? startAgain(qmpPath) : end(qmpPath)).catch((error: unknown) => say(String(error)));
  };
}

async function startAgain(qmpPath: string): Promise<void> {
  using qmp = await Qmp.connect(qmpPath, QMP_MS);
  // A restart that the guest asks for ends the hypervisor; this one is ours. What becomes of it is fixed when it is asked for.
  await qmp.execute('set-action', { reboot: 'reset' }, QMP_MS);
  await qmp.execute('system_reset', {}, QMP_MS);
  await qmp.execute('set-action', { reboot: 'shutdown' }, QMP_MS);
}

async function end(qmpPath: string): Promise<void> {
  using qmp = await Qmp.connect(qmpPath, QMP_MS);
  await qmp.execute('quit', {}, QMP_MS);
}

/**
 * Of a guest's kernel from its first words to its first program; times the driver's slowdown. A kernel does it in three seconds, on a
 * busy computer in twenty. Seen once in about 300 boots (QEMU 7.2, TCG, Linux 6.1): it stopped in the middle, with a right timer,
 * for good. Why was not found.
 */
const KERNEL_MS = 6_000;

/** To be told when this guest's kernel says its first words, and when its first program runs. `runs`: whether its hypervisor does. */
export function keepKernelGoing(
  qmpPath: string,
  guest: { slowdown: number; runs: () => boolean; say: (line: string) => void },
): { began: () => void; through: () => void } {
  const { slowdown, runs, say } = guest;
  const limitMs = KERNEL_MS * slowdown;
  let starts = 0;
  let timer: NodeJS.Timeout | undefined;
  const hung = (): void => {
    if (!runs() || starts >= STARTS) return;
    say(`the guest's kernel did not come to its first program in ${limitMs} ms: it is started again`);
    void startAgain(qmpPath).catch((error: unknown) => say(String(error)));
  };
  return {
    began: () => {
      clearTimeout(timer);
      starts += 1;
      timer = setTimeout(hung, limitMs).unref();
    },
    through: () => clearTimeout(timer),
  };
}
