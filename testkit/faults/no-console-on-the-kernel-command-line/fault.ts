import type { Fault } from '../fault.ts';
import { changeHypervisor } from '../vm.ts';

export const noConsoleOnTheKernelCommandLine: Fault = {
  name: 'no-console-on-the-kernel-command-line',
  driver: 'qemu',
  expect: 'no_console',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: (place) =>
    changeHypervisor(
      place,
      `for word in "$@"; do
  shift
  set -- "$@" "$(printf %s "$word" | sed s/console=ttyS0//)"
done`,
    ),
  started: async () => undefined,
};
