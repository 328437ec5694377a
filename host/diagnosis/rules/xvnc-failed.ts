/** The program starts and ends. */
import { linesIn, linesOf, type Rule } from '../rule.ts';

export const xvncFailed: Rule = {
  name: 'xvnc_failed',
  prove(found) {
    if (found.error?.code !== 'desktop_failed') return undefined;
    const ended = linesOf(found, 'error', /^Xvnc/);
    if (ended.length === 0) return undefined;
    return [...ended, ...linesIn(found, ['agent.log', 'console.log'], / xvnc: /)];
  },
};
