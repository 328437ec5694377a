/** Node met an instruction that this processor does not have, or broke otherwise. */
import { checked, exitLine, guestSaid, linesOf, type Rule } from '../rule.ts';

/** 128 and the signal's number, as tini passes on how its child ended: illegal instruction, trap, bus, FPE, segment. */
const SIGNALS: Readonly<Record<number, string>> = {
  132: 'SIGILL',
  133: 'SIGTRAP',
  135: 'SIGBUS',
  136: 'SIGFPE',
  139: 'SIGSEGV',
};

export const agentRuntimeKilled: Rule = {
  name: 'agent_runtime_killed',
  prove(found) {
    // In a virtual machine systemd starts it again and again; it says how it ended, and the witness that it always does.
    const given = linesOf(found, 'console.log', /polydev-witness: NRestarts=/);
    const told = guestSaid(found, /polydev-agent.*(killed|dumped), status=\d+\/(ILL|TRAP|BUS|FPE|SEGV)/);
    if (given.length > 0 && told.length > 0) return [...told, ...given];
    const signal = SIGNALS[found.exit?.code ?? 0];
    if (signal === undefined || found.exit?.oomKilled === true) return undefined;
    return [checked(`the agent's program ended by ${signal}`), ...exitLine(found)];
  },
};
