import { CANARIES, type Fault } from '../fault.ts';

/** A version that prints something else, and talks too much while it does. */
const CLI = `#!/bin/sh
echo "Something is different in this version"
echo "Authorization: Bearer ${CANARIES.bearer}"
echo '{"access_token": "${CANARIES.named}"}'
echo "eyJhbGciOiJub25lIn0.${CANARIES.jwt}.x" >&2
exit 1
`;

export const cliPrintsNoLoginUrl: Fault = {
  name: 'cli-prints-no-login-url',
  expect: 'cli_no_login_url',
  login: true,
  before: async ({ disk }) => disk.write('/usr/local/bin/codex', CLI),
};
