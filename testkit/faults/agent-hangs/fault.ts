import { readFileSync } from 'node:fs';
import { cgroupOfInstance, cgroupProcesses } from '../../../host/system/cgroups.ts';
import type { Fault } from '../fault.ts';

export const agentHangs: Fault = {
  name: 'agent-hangs',
  expect: 'agent_silent',
  after: async ({ id, config, defer }) => {
    const processes = cgroupProcesses(`${cgroupOfInstance(config.instance)}/${id}`);
    const agents = processes.filter(({ pid }) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('/opt/polydev/agent/main.mjs'),
    );
    if (agents.length === 0) throw new Error('no process of the machine is an agent');
    for (const { pid } of agents) {
      process.kill(pid, 'SIGSTOP');
      defer(() => {
        try {
          process.kill(pid, 'SIGCONT');
        } catch {
          // The machine is gone.
        }
      });
    }
  },
};
