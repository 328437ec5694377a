/** Tells a guest that was resumed, or is claimed from a pool, what it cannot know: the time, and fresh random bytes. */
import { randomBytes } from 'node:crypto';
import type { Woke } from '../../protocol/agent.ts';
import { type KnownClock, readClock } from '../../protocol/clock.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentClient } from './agent-client.ts';

/** How far a guest's clock may be off after it woke, beside what the way to it takes. */
const CLOCK_TOLERANCE_MS = 50;
const ATTEMPTS = 5;
const ENTROPY_BYTES = 64;

/** What a guest is told: the time, and bytes for it alone. */
export const wokeNow = (): Woke => ({
  time: new Date().toISOString(),
  entropyBase64: randomBytes(ENTROPY_BYTES).toString('base64'),
});

/**
 * Tells it once.
 * @returns whether its clock is known to be right and was so before, and how far it is off beside what the way took
 */
export async function tell(
  agent: AgentClient,
  woke: Woke,
  signal: AbortSignal,
): Promise<{ right: boolean; offMs: number }> {
  const sent = Date.now();
  const began = performance.now();
  const reply = await agent.woke(woke, signal);
  const roundMs = performance.now() - began;
  // It answered somewhere between the sending and now.
  const answered = Date.parse(reply.time);
  const offMs = Math.max(sent - answered, answered - (sent + roundMs), 0);
  return { right: !reply.clockSet && offMs <= CLOCK_TOLERANCE_MS, offMs };
}

/** What time it is for its own clock; undefined: its agent is of an image that had no such call, and slept meanwhile. */
async function known(agent: AgentClient, signal: AbortSignal): Promise<KnownClock | undefined> {
  try {
    return await readClock(async () => {
      const began = performance.now();
      const { uptimeMs } = await agent.clock(signal);
      return { uptimeMs, tookMs: performance.now() - began };
    });
  } catch (error) {
    if (PolydevError.from(error).code === 'not_found') return undefined;
    throw error;
  }
}

/**
 * Tells it what time it is until its clock is right.
 * @throws machine_unreachable; machine_resume_failed when the clock stays wrong
 */
export async function wake(agent: AgentClient, signal: AbortSignal): Promise<void> {
  let offMs = 0;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const clock = await known(agent, signal);
    const told = await tell(agent, { ...wokeNow(), ...clock }, signal);
    offMs = told.offMs;
    if (told.right || (clock !== undefined && offMs <= CLOCK_TOLERANCE_MS)) return;
  }
  if (offMs <= CLOCK_TOLERANCE_MS) return;
  throw new PolydevError(
    'machine_resume_failed',
    `the clock of machine ${agent.machineId} is ${Math.round(offMs)} ms off after it woke`,
  );
}
