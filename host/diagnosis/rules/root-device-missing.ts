/** The first program of the guest waited for a disk that it was not given. */
import { exitLine, linesOf, proof, type Rule } from '../rule.ts';

export const rootDeviceMissing: Rule = {
  name: 'root_device_missing',
  prove(found) {
    const said = linesOf(found, 'console.log', /polydev-init: FAILED: there is no /);
    return said.length === 0 ? undefined : proof(...said, ...exitLine(found));
  },
};
