import { namespacePath, portName, routerNamespace } from '../../../host/network/addresses.ts';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const tapNotOnTheBridge: Fault = {
  name: 'tap-not-on-the-bridge',
  driver: 'qemu',
  expect: 'tap_not_on_bridge',
  spec: { kind: 'cli', realm: 'test' },
  started: async ({ id, config }) => {
    const netns = namespacePath(routerNamespace(config.instance));
    await run(['ip', 'link', 'set', portName(id), 'nomaster'], { netns });
  },
};
