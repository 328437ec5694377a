/** The program starts and ends, as often as it was started again. */
import { linesIn, linesOf, type Rule } from '../rule.ts';

export const chromiumCrashed: Rule = {
  name: 'chromium_crashed',
  prove(found) {
    if (found.error?.code !== 'desktop_failed') return undefined;
    const ended = linesOf(found, 'error', /^Chromium ended/);
    if (ended.length === 0) return undefined;
    return [...ended, ...linesIn(found, ['agent.log', 'console.log'], / (chromium|desktop): /)];
  },
};
