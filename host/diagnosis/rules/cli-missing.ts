/** The agent looked for the provider's program. */
import { linesOf, proof, type Rule } from '../rule.ts';

export const cliMissing: Rule = {
  name: 'cli_missing',
  prove: (found) =>
    proof(...linesOf(found, 'error', /not installed in the image: |the CLI could not be started/)),
};
