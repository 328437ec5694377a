/** Tells a guest that was resumed, or is claimed from a pool, what it cannot know: the time, and fresh random bytes. */
import { randomBytes } from 'node:crypto';
import type { Woke } from '../../protocol/agent.ts';
import { type ClockSample, clockSample, isSurelyRight, mayBeRight, setClock } from '../../protocol/clock.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentClient } from './agent-client.ts';

const ENTROPY_BYTES = 64;

/** What a guest is told: the time, and bytes for it alone. */
export const wokeNow = (): Woke => ({
  time: new Date().toISOString(),
  entropyBase64: randomBytes(ENTROPY_BYTES).toString('base64'),
});

/** What the answer to a call says of a guest's clock. */
async function sampled<T extends { time: string; tookMs: number }>(
  ask: () => Promise<T>,
): Promise<{ reply: T; sample: ClockSample }> {
  const [sentMs, began] = [Date.now(), performance.now()];
  const reply = await ask();
  return { reply, sample: clockSample({ sentMs, roundMs: performance.now() - began, ...reply }) };
}

/**
 * Tells it once.
 * @returns whether its clock is known to be right then
 */
export async function tell(
  agent: AgentClient,
  woke: Woke,
  signal: AbortSignal,
): Promise<{ right: boolean; sample: ClockSample }> {
  const { sample } = await sampled(() => agent.woke(woke, signal));
  return { right: isSurelyRight(sample), sample };
}

/**
 * Tells it, and sets its clock until it is right.
 * @throws machine_unreachable; machine_resume_failed when the clock stays wrong
 */
export async function wake(agent: AgentClient, signal: AbortSignal): Promise<void> {
  const { sample } = await tell(agent, wokeNow(), signal);
  const last = await setClock(sample, async (stepMs) => {
    const looked = await sampled(() => agent.clock(stepMs, signal));
    return { ...looked.sample, stepped: looked.reply.stepped };
  }).catch((thrown: unknown) => {
    // A machine may have slept since its image had no such call.
    if (PolydevError.from(thrown).code !== 'not_found') throw thrown;
    return sample;
  });
  if (mayBeRight(last)) return;
  throw new PolydevError(
    'machine_resume_failed',
    `the clock of machine ${agent.machineId} is ${Math.round(Math.abs(last.aheadMs))} ms off after it woke`,
  );
}
