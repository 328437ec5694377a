import type { Fault } from '../fault.ts';
import { noConsoleOnTheKernelCommandLine } from '../no-console-on-the-kernel-command-line/fault.ts';
import { vmAgentRuntimeMissing } from '../vm-agent-runtime-missing/fault.ts';

/** Nothing is on the console: only the journal on the disk of the dead guest says it. */
export const vmAgentRuntimeMissingWithoutAConsole: Fault = {
  name: 'vm-agent-runtime-missing-without-a-console',
  driver: 'qemu',
  expect: 'agent_runtime_unusable',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  before: async (place) => {
    await vmAgentRuntimeMissing.before?.(place);
    await noConsoleOnTheKernelCommandLine.before?.(place);
  },
};
