import type { Fault } from '../fault.ts';

export const cliPrintsNoLoginUrl: Fault = {
  name: 'cli-prints-no-login-url',
  expect: 'cli_no_login_url',
  login: true,
  before: async ({ disk }) =>
    disk.write('/usr/local/bin/codex', '#!/bin/sh\necho "Something is different in this version"\nexit 1\n'),
};
