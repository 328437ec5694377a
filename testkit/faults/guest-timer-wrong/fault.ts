import type { Fault } from '../fault.ts';
import { changeWords } from '../vm.ts';

/** The kernel is told of a clock that is 2,500 times slower than it is, so 0.1 s of it are over at once. */
export const guestTimerWrong: Fault = {
  name: 'guest-timer-wrong',
  driver: 'qemu',
  expect: 'guest_timer_wrong',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: (place) => changeWords(place, 's/tsc_early_khz=[0-9]*/tsc_early_khz=1000/'),
};
