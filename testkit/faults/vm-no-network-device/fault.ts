import { namespacePath, portName, routerNamespace } from '../../../host/network/addresses.ts';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const vmNoNetworkDevice: Fault = {
  name: 'vm-no-network-device',
  driver: 'qemu',
  expect: 'no_network_device',
  spec: { kind: 'cli', realm: 'test' },
  started: async ({ id, config }) => {
    await run(['ip', 'link', 'del', portName(id)], {
      netns: namespacePath(routerNamespace(config.instance)),
    });
  },
};
