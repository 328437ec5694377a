import type { Fault } from '../fault.ts';
import { changeHypervisor } from '../vm.ts';

export const guestClockYearsOff: Fault = {
  name: 'guest-clock-years-off',
  driver: 'qemu',
  expect: 'guest_clock_wrong',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: (place) => changeHypervisor(place, 'set -- "$@" -rtc base=2019-03-01T00:00:00'),
};
