import type { Fault } from '../fault.ts';

export const xvncMissing: Fault = {
  name: 'xvnc-missing',
  expect: 'xvnc_missing',
  before: async ({ disk }) => disk.remove('/usr/bin/Xvnc'),
};
