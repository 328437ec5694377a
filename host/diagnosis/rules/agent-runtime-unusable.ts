/** tini or Node is away, may not be executed, or names an interpreter that is not there. */
import { exitLine, guestSaid, linesIn, type Rule, reached } from '../rule.ts';

/** What tini says when it cannot execute the agent's program, and what systemd says in a virtual machine. */
const TINI = /\[FATAL tini .*exec .* failed|\[WARN\s+tini|Failed at step EXEC spawning|status=203\/EXEC/;

export const agentRuntimeUnusable: Rule = {
  name: 'agent_runtime_unusable',
  prove(found) {
    if (reached(found, 'agent')) return undefined;
    const said = guestSaid(found, TINI);
    const runtime = linesIn(
      found,
      ['error', 'runtime.log'],
      /exec(utable)?:? .*\/usr\/(bin\/tini|local\/bin\/node)/,
    );
    const lines = [...said, ...runtime];
    return lines.length === 0 ? undefined : [...lines, ...exitLine(found)];
  },
};
