import { idpNamespace, namespacePath } from '../../../host/network/addresses.ts';
import { run } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const identityProviderUnreachable: Fault = {
  name: 'identity-provider-unreachable',
  expect: 'idp_unreachable',
  spec: { realm: 'test' },
  after: async ({ config }) => {
    const netns = namespacePath(idpNamespace(config.instance));
    await run(['ip', 'link', 'set', 'eth0', 'down'], { netns });
  },
};
