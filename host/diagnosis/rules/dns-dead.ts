/** Asked from inside the machine. */
import { checked, type Rule } from '../rule.ts';

export const dnsDead: Rule = {
  name: 'dns_dead',
  prove(found) {
    const resolver = found.facts?.network?.resolver;
    if (resolver == null || resolver.answers) return undefined;
    return [checked(`asked from inside the machine, ${resolver.address} port 53 said: ${resolver.said}`)];
  },
};
