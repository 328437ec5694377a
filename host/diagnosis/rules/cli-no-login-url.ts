/** The CLI ended or was silent. */
import { linesOf, type Rule } from '../rule.ts';

export const cliNoLoginUrl: Rule = {
  name: 'cli_no_login_url',
  prove(found) {
    if (found.error?.code !== 'login_no_url') return undefined;
    return linesOf(found, 'error', /./, 10);
  },
};
