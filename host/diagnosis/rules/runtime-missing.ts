/** runc is away. */
import { checked, linesOf, type Rule } from '../rule.ts';

export const runtimeMissing: Rule = {
  name: 'runtime_missing',
  prove(found) {
    if (found.facts?.missingPrograms.includes('runc') !== true) return undefined;
    return [checked('runc cannot be executed on this host'), ...linesOf(found, 'error', /runc/)];
  },
};
