import type { Fault } from '../fault.ts';

export const initMissing: Fault = {
  name: 'init-missing',
  expect: 'agent_runtime_unusable',
  before: async ({ disk }) => disk.remove('/usr/bin/tini'),
};
