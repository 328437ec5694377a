/** wake/: what a guest must mend after it has slept, was started long before somebody uses it, or was copied. */
import type { AgentLog } from '../log.ts';
import { Program } from './run.ts';

/** Nearer than this the clock is left alone: setting it would not make it better. */
const NEAR_MS = 10;

export interface Moment {
  /** Wall clock, ms since 1970. */
  readonly time: number;
  /** monotonicMs() at that moment. */
  readonly at: number;
}

/** The kernel's monotonic clock, in milliseconds: it does not jump when the other one is set, and every process reads the same. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

// One program for both: where processors are emulated, starting one takes longer than all it does. The numbers are those of
// Linux on x86-64, which is what virtual machines are made for.
//
// RNDADDENTROPY with the bytes, then RNDRESEEDCRNG, of random(4): bytes that are only written to the device are mixed in
// minutes later, when a clone may have given out the same numbers as its twin.
//
// The first line of its input is what the wall clock is ahead of the monotonic one, in nanoseconds; empty: the clock is left alone.
// What passes between reading the one and setting the other the wall clock is behind: where that was long, it is done again.
export const mender = new Program(
  'perl',
  '-e',
  `binmode STDIN;
  defined(my $offset = <STDIN>) or exit 1;
  chomp $offset;
  local $/; my $bytes = <STDIN>;
  open(my $device, '+<', '/dev/urandom') or die "$!\\n";
  ioctl($device, 0x40085203, pack('ii', 8 * length($bytes), length($bytes)) . $bytes) or die "random numbers: $!\\n";
  ioctl($device, 0x5207, 0) or die "random numbers: $!\\n";
  exit if $offset eq '';
  sub monotonic {
    my $time = pack('qq', 0, 0);
    syscall(228, 1, $time) == 0 or die "monotonic clock: $!\\n";
    my ($seconds, $nanoseconds) = unpack('qq', $time);
    return $seconds * 1_000_000_000 + $nanoseconds;
  }
  for (1 .. 20) {
    my $read = monotonic();
    my $now = $read + $offset;
    syscall(227, 0, pack('qq', int($now / 1_000_000_000), $now % 1_000_000_000)) == 0 or die "clock: $!\\n";
    last if monotonic() - $read < 2_000_000;
  }`,
);

/**
 * Sets the guest's clock to a moment plus what has passed since then, unless it is right, and gives its kernel bytes that no other
 * machine has. What fails is logged, and false. Only for a guest with a kernel of its own; `slowdown`: of its driver.
 */
export async function mend(
  now: Moment,
  bytes: Buffer,
  log: AgentLog,
  slowdown = 1,
): Promise<{ aheadMs: number; clockSet: boolean; reseeded: boolean }> {
  const aheadMs = Math.round((Date.now() - (now.time + monotonicMs() - now.at)) * 1000) / 1000;
  const wrong = Math.abs(aheadMs) > NEAR_MS;
  // Of what was told alone: a clock that is read here may be read long after the other one on a busy computer.
  const offset = BigInt(Math.round((now.time - now.at) * 1e6));
  const input = Buffer.concat([Buffer.from(`${wrong ? offset : ''}\n`), bytes]);
  const problem = await mender.run(input, slowdown);
  if (problem !== undefined) {
    log.add('wake', `the clock is ${aheadMs} ms ahead; mending it and the random numbers: ${problem}`);
    return { aheadMs, clockSet: false, reseeded: false };
  }
  if (wrong) log.add('wake', `the clock was ${aheadMs} ms ahead and is set`);
  return { aheadMs, clockSet: wrong, reseeded: true };
}
