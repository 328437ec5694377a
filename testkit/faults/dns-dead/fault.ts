import { namespacePath, routerNamespace } from '../../../host/network/addresses.ts';
import { processesInNetworkNamespace } from '../../../host/system/processes.ts';
import type { Fault } from '../fault.ts';

export const dnsDead: Fault = {
  name: 'dns-dead',
  expect: 'dns_dead',
  after: async ({ config, defer }) => {
    const router = processesInNetworkNamespace(namespacePath(routerNamespace(config.instance)));
    for (const { pid } of router) {
      process.kill(pid, 'SIGSTOP');
      defer(() => void process.kill(pid, 'SIGCONT'));
    }
  },
};
