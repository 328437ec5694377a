import { once } from 'node:events';
import { machineNamespace, namespacePath } from '../../../host/network/addresses.ts';
import { spawnIn } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const callbackPortTaken: Fault = {
  name: 'callback-port-taken',
  expect: 'callback_port_taken',
  login: true,
  after: async ({ id, config, defer }) => {
    const netns = namespacePath(machineNamespace(config.instance, id));
    const script =
      "require('net').createServer((c) => c.destroy()).listen(1455, '127.0.0.1', () => console.log('up'))";
    const child = spawnIn(netns, [process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    defer(() => void child.kill('SIGKILL'));
    if (child.stdout !== null) await once(child.stdout, 'data', { signal: AbortSignal.timeout(5000) });
  },
};
