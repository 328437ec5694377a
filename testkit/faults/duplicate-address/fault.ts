import { machineNamespace, namespacePath } from '../../../host/network/addresses.ts';
import { run } from '../../../host/system/command.ts';
import { newMachineId } from '../../../protocol/ids.ts';
import type { Fault } from '../fault.ts';

export const duplicateAddress: Fault = {
  name: 'duplicate-address',
  expect: 'duplicate_address',
  after: async ({ id, config, defer }) => {
    const own = namespacePath(machineNamespace(config.instance, id));
    const links = await run(['ip', '-4', '-o', 'addr', 'show', 'dev', 'eth0'], { netns: own });
    const address = /inet ([\d.]+)/.exec(links)?.[1] ?? '';
    const other = machineNamespace(config.instance, newMachineId());
    await run(['ip', 'netns', 'add', other]);
    defer(async () => void (await run(['ip', 'netns', 'del', other])));
    await run(['ip', 'addr', 'add', `${address}/32`, 'dev', 'lo'], { netns: namespacePath(other) });
  },
};
