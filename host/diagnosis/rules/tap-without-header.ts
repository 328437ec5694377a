/** Looked up by the driver before it hands the link to the hypervisor. */
import { linesOf, proof, type Rule } from '../rule.ts';

export const tapWithoutHeader: Rule = {
  name: 'tap_without_header',
  prove: (found) => proof(...linesOf(found, 'error', /TAP interface \S+: it lacks the header flag/)),
};
