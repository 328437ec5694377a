import type { Fault } from '../fault.ts';
import { changeWords } from '../vm.ts';

/** Less than the driver would allow: the guest's kernel finds nothing to end and is deadlocked on memory. */
export const vmMemoryDeadlock: Fault = {
  name: 'vm-memory-deadlock',
  driver: 'qemu',
  expect: 'guest_out_of_memory',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: (place) => changeWords(place, 's/^1024M$/72M/'),
};
