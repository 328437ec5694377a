import { namespacePath, portName, routerNamespace } from '../../../host/network/addresses.ts';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const noNetworkDevice: Fault = {
  name: 'no-network-device',
  expect: 'no_network_device',
  after: async ({ id, config }) => {
    await run(['ip', 'link', 'del', portName(id)], {
      netns: namespacePath(routerNamespace(config.instance)),
    });
  },
};
