/** Tried from inside the machine. */
import { checked, type Rule } from '../rule.ts';

export const idpUnreachable: Rule = {
  name: 'idp_unreachable',
  prove(found) {
    const provider = found.facts?.network?.provider;
    if (provider == null || provider.reachable) return undefined;
    return [checked(`tried from inside the machine, ${provider.address} port 443 said: ${provider.said}`)];
  },
};
