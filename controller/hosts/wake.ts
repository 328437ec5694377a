/** Tells a guest that was resumed, or is claimed from a pool, what it cannot know: the time, and fresh random bytes. */
import { randomBytes } from 'node:crypto';
import type { Woke } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { AgentClient } from './agent-client.ts';

/** How far a guest's clock may be off after it woke, beside what the way to it takes. */
const CLOCK_TOLERANCE_MS = 50;
const ATTEMPTS = 5;
const ENTROPY_BYTES = 64;

/** What a guest is told: the time in `wayMs` from now, and bytes for it alone. */
export const wokeNow = (wayMs = 0): Woke => ({
  time: new Date(Date.now() + wayMs).toISOString(),
  entropyBase64: randomBytes(ENTROPY_BYTES).toString('base64'),
});

/**
 * Tells it once.
 * @returns whether its clock is known to be right, and what the way there and back took
 */
export async function tell(
  agent: AgentClient,
  woke: Woke,
  signal: AbortSignal,
): Promise<{ right: boolean; offMs: number; clockSet: boolean; roundMs: number }> {
  const sent = Date.now();
  const began = performance.now();
  const reply = await agent.woke(woke, signal);
  const roundMs = performance.now() - began;
  // It answered somewhere between the sending and now.
  const answered = Date.parse(reply.time);
  const offMs = Math.max(sent - answered, answered - (sent + roundMs), 0);
  const { clockSet } = reply;
  return { right: !clockSet && offMs <= CLOCK_TOLERANCE_MS, offMs, clockSet, roundMs };
}

/**
 * Asks again until the guest's answer shows that its clock is right. Half of the last round trip is added to what it is
 * told: the way there counts.
 * @throws machine_unreachable; machine_resume_failed when the clock stays wrong
 */
export async function wake(agent: AgentClient, signal: AbortSignal): Promise<void> {
  let wayMs = 0;
  let offMs = 0;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const told = await tell(agent, wokeNow(wayMs), signal);
    if (told.right) return;
    offMs = told.offMs;
    // What setting the clock took is no part of the way.
    if (!told.clockSet) wayMs = told.roundMs / 2;
  }
  if (offMs <= CLOCK_TOLERANCE_MS) return;
  throw new PolydevError(
    'machine_resume_failed',
    `the clock of machine ${agent.machineId} is ${Math.round(offMs)} ms off after it woke`,
  );
}
