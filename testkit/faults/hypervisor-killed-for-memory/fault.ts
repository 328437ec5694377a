import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cgroupFolders, cgroupOfInstance, cgroupProcesses } from '../../../host/system/cgroups.ts';
import type { Fault } from '../fault.ts';

const FILES = [
  ['memory.max', 'memory.current'],
  ['memory.limit_in_bytes', 'memory.usage_in_bytes'],
] as const;

export const hypervisorKilledForMemory: Fault = {
  name: 'hypervisor-killed-for-memory',
  driver: 'qemu',
  expect: 'host_out_of_memory',
  spec: { kind: 'cli', realm: 'test' },
  // As on a host that has no memory left: the next page that the guest touches is one too many, and the kernel has to end
  // somebody.
  started: async ({ id, config }) => {
    const cgroup = `${cgroupOfInstance(config.instance)}/${id}`;
    const end = performance.now() + 60_000;
    while (cgroupProcesses(cgroup).length > 0 && performance.now() < end) {
      for (const folder of cgroupFolders(cgroup)) {
        for (const [limit, used] of FILES.map((names) => names.map((name) => path.join(folder, name)))) {
          if (limit === undefined || used === undefined || !existsSync(limit)) continue;
          try {
            writeFileSync(limit, String(Number(readFileSync(used, 'utf8')) - 4096));
          } catch {
            // Version 1 refuses a limit that it cannot reach at this moment.
          }
        }
      }
      await sleep(100);
    }
    // The host service takes the dead back meanwhile.
    await sleep(1500);
  },
};
