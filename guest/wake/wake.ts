/** wake/: what a guest must mend after it has slept, or was started long before somebody uses it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AgentLog } from '../log.ts';

/** Nearer than this it is left alone: setting it would not make it better. */
const NEAR_MS = 10;
const CLOCK_ATTEMPTS = 5;
const PROGRAM_TIMEOUT_MS = 10_000;

export interface Moment {
  /** Wall clock, ms since 1970. */
  readonly time: number;
  /** performance.now() at that moment; it does not jump when the clock is set. */
  readonly at: number;
}

/**
 * Sets the guest's clock to a moment plus what has passed since then. A machine that shares its host's clock may not set
 * it, and need not.
 */
export async function setClock(now: Moment, log: AgentLog): Promise<{ aheadMs: number; clockSet: boolean }> {
  const ahead = (): number => Date.now() - (now.time + performance.now() - now.at);
  const aheadMs = Math.round(ahead() * 1000) / 1000;
  let clockSet = false;
  // Starting the program takes a while, which the second attempt knows.
  let late = 0;
  for (let attempt = 0; attempt < CLOCK_ATTEMPTS && Math.abs(ahead()) > NEAR_MS; attempt++) {
    const wanted = now.time + performance.now() - now.at + late;
    const problem = await run(['date', '--utc', `--set=@${(wanted / 1000).toFixed(3)}`], Buffer.alloc(0));
    if (problem !== undefined) {
      log.add('wake', `the clock is ${aheadMs} ms ahead and cannot be set: ${problem}`);
      break;
    }
    clockSet = true;
    late -= ahead();
  }
  if (clockSet) log.add('wake', `the clock was ${aheadMs} ms ahead and is set`);
  return { aheadMs, clockSet };
}

// RNDADDENTROPY with the bytes, then RNDRESEEDCRNG, of random(4): bytes that are only written to the device are mixed in
// minutes later, when a clone may have given out the same numbers as its twin.
const RESEED = `
  local $/; binmode STDIN; my $bytes = <STDIN>;
  open(my $device, '+<', '/dev/urandom') or die "$!\\n";
  ioctl($device, 0x40085203, pack('ii', 8 * length($bytes), length($bytes)) . $bytes) or die "$!\\n";
  ioctl($device, 0x5207, 0) or die "$!\\n";`;

/** Gives the guest's kernel bytes that no other machine has. False where the kernel is the host's. */
export async function reseed(bytes: Buffer, log: AgentLog): Promise<boolean> {
  const problem = await run(['perl', '-e', RESEED], bytes);
  if (problem !== undefined) log.add('wake', `random numbers: ${problem}`);
  return problem === undefined;
}

/** Runs a program as the agent itself; why it failed, or undefined. */
async function run(argv: readonly [string, ...string[]], input: Buffer): Promise<string | undefined> {
  const [file, ...args] = argv;
  const child = spawn(file, args, { stdio: ['pipe', 'ignore', 'pipe'], timeout: PROGRAM_TIMEOUT_MS });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-500);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  try {
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    return code === 0 ? undefined : said.trim() || `${file} ended with ${code ?? signal}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
