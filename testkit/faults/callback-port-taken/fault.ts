import { once } from 'node:events';
import { machineNamespace, namespacePath } from '../../../host/network/addresses.ts';
import { spawnIn } from '../../../host/system/command.ts';
import type { Fault } from '../fault.ts';

export const callbackPortTaken: Fault = {
  name: 'callback-port-taken',
  expect: 'callback_port_taken',
  // Codex asks whoever holds its port to end, tries again, and then takes its second port: both are held here.
  login: true,
  after: async ({ id, config, defer }) => {
    const netns = namespacePath(machineNamespace(config.instance, id));
    const script =
      "let up = 0; for (const port of [1455, 1457]) require('net').createServer((c) => c.destroy()).listen(port, '127.0.0.1', () => ++up === 2 && console.log('up'))";
    const child = spawnIn(netns, [process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    defer(() => void child.kill('SIGKILL'));
    if (child.stdout !== null) await once(child.stdout, 'data', { signal: AbortSignal.timeout(5000) });
  },
};
