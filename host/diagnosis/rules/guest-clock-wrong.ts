/** The agent's stamps against the host's clock. */
import { checked, type Rule } from '../rule.ts';

const DAY_MS = 86_400_000;

export const guestClockWrong: Rule = {
  name: 'guest_clock_wrong',
  prove(found) {
    // The host's own stamp, of the same boot: a machine that is asked about days later was right all the time.
    const now = found.stamps.find(({ checkpoint }) => checkpoint === 'hypervisor')?.at ?? found.facts?.at;
    if (now === undefined) return undefined;
    const off = found.stamps.filter(({ at }) => Math.abs(Date.parse(at) - Date.parse(now)) > DAY_MS);
    if (off.length === 0) return undefined;
    return off.map(({ checkpoint, at }) =>
      checked(`by the guest's clock it reached ${checkpoint} at ${at}; here it was ${now}`),
    );
  },
};
