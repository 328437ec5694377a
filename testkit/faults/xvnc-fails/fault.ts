import type { Fault } from '../fault.ts';

export const xvncFails: Fault = {
  name: 'xvnc-fails',
  expect: 'xvnc_failed',
  before: async ({ disk }) =>
    disk.write('/usr/bin/Xvnc', '#!/bin/sh\necho "Fatal server error: no screens found" >&2\nexit 1\n'),
};
