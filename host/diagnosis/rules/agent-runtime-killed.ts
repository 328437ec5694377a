/** Node met an instruction that this processor does not have, or broke otherwise. */
import { checked, exitLine, type Rule } from '../rule.ts';

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
    const signal = SIGNALS[found.exit?.code ?? 0];
    if (signal === undefined || found.exit?.oomKilled === true) return undefined;
    return [checked(`the agent's program ended by ${signal}`), ...exitLine(found)];
  },
};
