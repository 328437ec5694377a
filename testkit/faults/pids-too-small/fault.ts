import type { Fault } from '../fault.ts';

export const pidsTooSmall: Fault = {
  name: 'pids-too-small',
  expect: 'pids_too_small',
  spec: { limits: { cpus: 2, memoryMiB: 1024, pids: 40 } },
};
