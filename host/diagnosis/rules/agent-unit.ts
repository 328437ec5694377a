/** systemd has no reason to start the agent: its unit is absent, its link leads nowhere, or nothing wants it. */

import type { Case } from '../case.ts';
import { guestSaid, linesOf, type Rule } from '../rule.ts';

const seen = (found: Case) => linesOf(found, 'console.log', /polydev-witness: /, 10);
const state = (found: Case): string | undefined =>
  seen(found).find(({ text }) => text.includes('LoadState='))?.text;

export const agentUnitDangling: Rule = {
  name: 'agent_unit_dangling',
  prove: (found) =>
    seen(found).some(({ text }) => text.includes('dangling link')) ? seen(found) : undefined,
};

export const agentUnitAbsent: Rule = {
  name: 'agent_unit_absent',
  prove: (found) =>
    /LoadState=(not-found|bad-setting|masked|error)/.test(state(found) ?? '') ? seen(found) : undefined,
};

export const agentOrderingCycle: Rule = {
  name: 'agent_ordering_cycle',
  prove(found) {
    if (state(found) === undefined) return undefined;
    const cycle = guestSaid(found, /ordering cycle/, 10);
    return cycle.length === 0 ? undefined : [...cycle, ...seen(found)];
  },
};

export const agentUnitNotEnabled: Rule = {
  name: 'agent_unit_not_enabled',
  prove: (found) =>
    /LoadState=loaded UnitFileState=disabled/.test(state(found) ?? '') ? seen(found) : undefined,
};

export const agentDependencyStuck: Rule = {
  name: 'agent_dependency_stuck',
  prove: (found) => (seen(found).some(({ text }) => text.includes('jobs: ')) ? seen(found) : undefined),
};
