import type { Fault } from '../fault.ts';

export const memoryTooSmall: Fault = {
  name: 'memory-too-small',
  expect: 'memory_too_small',
  spec: { limits: { cpus: 2, memoryMiB: 96, pids: 512 } },
};
