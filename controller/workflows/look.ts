/** One look at a machine that is ready: does its agent answer, and does its host see anything? Knows no database. */
import type { GuestNetwork } from '../../protocol/agent.ts';
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentClient } from '../hosts/agent-client.ts';
import type { HostClient } from '../hosts/host-client.ts';

export interface MachineToLookAt {
  readonly host: HostClient;
  readonly agent: AgentClient;
  /** How many times longer than usual the agent may take: its machine is slow, or its host busy. */
  readonly patience: number;
  readonly signal: AbortSignal;
}

/** Null for `diagnosis`: nothing is wrong as far as can be seen. */
export interface Sight {
  readonly diagnosis: Diagnosis | null;
  readonly agentVersion: string | null;
}

const ANSWER_MS = 5_000;
/** One answer that does not come may be bad luck. */
const ATTEMPTS = 2;

/** @throws host_unreachable and what else the host names: then nothing is known of the machine */
export async function lookAt({ host, agent, patience, signal }: MachineToLookAt): Promise<Sight> {
  const { error, agentVersion, guestNetwork } = await askAgent(
    agent,
    Math.round(ANSWER_MS * patience),
    signal,
  );
  // The agent names what is wrong with its desktop in its log.
  if (error !== null && error.code !== 'machine_unreachable') await keepLog(host, agent, signal);
  const question = { error: error?.toReport() ?? null, agentVersion, guestNetwork };
  return { diagnosis: await host.look(agent.machineId, question, signal), agentVersion };
}

interface Answer {
  readonly error: PolydevError | null;
  readonly agentVersion: string | null;
  readonly guestNetwork: GuestNetwork | null;
}

async function askAgent(agent: AgentClient, answerMs: number, signal: AbortSignal): Promise<Answer> {
  for (let attempt = 1; ; attempt++) {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
    try {
      const { version, failure, network = null } = await agent.health(limit);
      const error = failure === null ? null : PolydevError.fromReport({ error: failure });
      return { error, agentVersion: version, guestNetwork: network };
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      const late = limit.aborted;
      const error = PolydevError.from(thrown, 'machine_unreachable');
      // Its host has to answer first: that is thrown, and is no fault of the machine.
      if (error.code === 'host_unreachable') throw error;
      const certain = !late && error.code !== 'machine_unreachable';
      if (!certain && attempt < ATTEMPTS) continue;
      const said = late
        ? `the agent did not answer ${attempt} times within ${answerMs / 1000} s`
        : `the agent did not answer ${attempt} times: ${error.message}`;
      const named = certain ? error : new PolydevError('machine_unreachable', said);
      return { error: named, agentVersion: null, guestNetwork: null };
    }
  }
}

const LOG_MS = 4_000;

async function keepLog(host: HostClient, agent: AgentClient, signal: AbortSignal): Promise<void> {
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(LOG_MS)]);
    const log = Buffer.from(await agent.log(limit));
    await host.addEvidence(agent.machineId, 'agent.log', log, limit);
  } catch {
    // Without it there is less to prove by.
  }
}
