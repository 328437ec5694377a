import type { Fault } from '../fault.ts';
import { changeWords } from '../vm.ts';

export const noConsoleOnTheKernelCommandLine: Fault = {
  name: 'no-console-on-the-kernel-command-line',
  driver: 'qemu',
  expect: 'no_console',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: (place) => changeWords(place, 's/console=ttyS0//'),
  started: async () => undefined,
};
