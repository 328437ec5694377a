import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from '../fault.ts';

export const killedFromOutside: Fault = {
  name: 'killed-from-outside',
  expect: 'machine_killed',
  after: async ({ id, config }) => {
    const pid = Number(await readFile(`${config.runDir}/m/${id}/pid`, 'utf8'));
    process.kill(pid, 'SIGKILL');
    await sleep(500);
  },
};
