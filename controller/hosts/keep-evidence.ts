/** Hands the host service what only the controller can see of a machine, while the machine is still here. */
import type { GuestNetwork } from '../../protocol/agent.ts';
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import type { PolydevError } from '../../protocol/errors.ts';
import { ERRORS } from '../../protocol/errors.ts';
import type { Stamp } from '../../protocol/machine.ts';
import type { AgentClient } from './agent-client.ts';
import type { HostClient } from './host-client.ts';
import { takeScreenshot } from './screenshot.ts';

export interface LastWords {
  readonly host: HostClient;
  readonly agent: AgentClient;
  /** Why the machine goes; null: its work is done. */
  readonly error: PolydevError | null;
  readonly stamps: readonly Stamp[];
  readonly timeline: readonly unknown[];
  /**
   * Take a picture of the desktop. Only for a machine that nobody has signed in at: a page of consent or of a callback
   * may show a code or a token.
   */
  readonly screenshot: boolean;
  readonly signal: AbortSignal;
}

/**
 * Each part by itself: what a broken machine cannot give any more is left out. Asks for the diagnosis at last, with all
 * the rest in place; none for an end that is the person's own (denied, cancelled, too late).
 */
export async function keepEvidence(words: LastWords): Promise<Diagnosis | null> {
  const { host, agent, error, signal } = words;
  const id = agent.machineId;
  const attempt = (work: () => Promise<void>): Promise<void> => work().catch(() => undefined);
  let agentVersion: string | null = null;
  let guestNetwork: GuestNetwork | null = null;
  await attempt(async () => {
    const timeline = Buffer.from(JSON.stringify(words.timeline, null, 2));
    await host.addEvidence(id, 'timeline.json', timeline, signal);
  });
  const machine = await host.get(id, signal).catch(() => undefined);
  if (machine?.state === 'running') {
    const soon = AbortSignal.any([signal, AbortSignal.timeout(4000)]);
    await attempt(async () => {
      const health = await agent.health(soon);
      agentVersion = health.version;
      guestNetwork = health.network ?? null;
    });
    await attempt(async () => {
      await host.addEvidence(id, 'agent.log', Buffer.from(await agent.log(soon)), signal);
    });
    if (words.screenshot) {
      await attempt(async () => {
        await host.addEvidence(id, 'desktop.png', await takeScreenshot(agent, soon), signal);
      });
    }
    // Without systemd the agent's log is all there is; of a guest that does not answer, the host reads it from the disk.
    if (agentVersion !== null && machine.driver !== 'namespace') {
      const later = AbortSignal.any([signal, AbortSignal.timeout(4000 * (machine.slowdown ?? 1))]);
      await attempt(async () => {
        await host.addEvidence(id, 'journal.log', Buffer.from(await agent.journal(later)), signal);
      });
    }
  }
  if (error === null || ERRORS[error.code].fault === 'user') return null;
  return host.diagnose(
    id,
    { error: error.toReport(), stamps: [...words.stamps], agentVersion, guestNetwork, keep: true },
    signal,
  );
}
