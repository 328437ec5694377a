import type { Fault } from '../fault.ts';

export const vmMemoryTooSmall: Fault = {
  name: 'vm-memory-too-small',
  driver: 'qemu',
  expect: 'guest_out_of_memory',
  spec: { kind: 'cli', realm: 'test', limits: { cpus: 2, memoryMiB: 64, pids: 512 } },
};
