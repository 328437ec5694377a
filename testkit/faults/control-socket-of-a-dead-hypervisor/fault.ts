import { closeSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { listenUnix } from '../../../host/system/syscalls.ts';
import type { Fault } from '../fault.ts';

export const controlSocketOfADeadHypervisor: Fault = {
  name: 'control-socket-of-a-dead-hypervisor',
  driver: 'qemu',
  expect: 'none',
  spec: { kind: 'cli', realm: 'test' },
  // Left where the machine's own will be, by a hypervisor that was killed.
  before: async ({ config, id, defer }) => {
    const folder = path.join(config.runDir, 'm', id);
    mkdirSync(folder, { recursive: true });
    for (const name of ['qmp.sock', 'agent.sock']) closeSync(listenUnix(path.join(folder, name), 1));
    defer(() => undefined);
  },
  started: async () => undefined,
};
