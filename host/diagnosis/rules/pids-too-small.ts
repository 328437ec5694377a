/** fork and clone were refused by the limit. */
import { checked, linesIn, type Rule } from '../rule.ts';

const REFUSED = /resource temporarily unavailable|EAGAIN|cannot fork|can't fork|pthread_create/i;

export const pidsTooSmall: Rule = {
  name: 'pids_too_small',
  prove(found) {
    const pids = found.facts?.guest?.pids;
    if (pids === undefined || pids.refused === 0) return undefined;
    return [
      checked(`the kernel refused a new process or thread ${pids.refused} times; the limit is ${pids.limit}`),
      ...linesIn(found, ['console.log', 'agent.log'], REFUSED),
    ];
  },
};
