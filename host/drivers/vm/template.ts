/** A guest that is saved at rest, and copies of it that become machines of their own: what the driver says to their agents. */
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, chownSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AgentClock,
  AgentHealth,
  type Become,
  type ExecRequest,
  type Link,
  type Woke,
} from '../../../protocol/agent.ts';
import { readClock } from '../../../protocol/clock.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import { newMachineId } from '../../../protocol/ids.ts';
import type { Checkpoint, GuestConfig, MachineKind, MachineSpec } from '../../../protocol/machine.ts';
import type { Attachment } from '../../network/network.ts';
import { parseJson } from '../../system/files.ts';
import type { Machine, Template } from '../driver.ts';
import { askAgent, type Dial } from './agent.ts';
import { networkdFile } from './config.ts';

/** Who is not there yet at this checkpoint of its boot is not copied. */
const READY_AT: Readonly<Record<MachineKind, Checkpoint>> = { browser: 'browser', cli: 'provider' };
/** What a browser does after its first page, so that its copies need not do it; times the driver's slowdown. */
const SETTLE_MS: Readonly<Record<MachineKind, number>> = { browser: 3_000, cli: 500 };
const POLL_MS = 250;

/** The specification of a machine like that one which is nobody's, and the token of its agent, which nobody else knows. */
export function asNobody(like: MachineSpec): { spec: MachineSpec; token: string } {
  const token = randomBytes(32).toString('hex');
  const agentTokenHash = createHash('sha256').update(token).digest('hex');
  return { spec: { ...like, id: newMachineId(), agentTokenHash }, token };
}

/** The file is nobody's from now on: every hypervisor may read it, and none can change it. */
export function giveAway(file: string): void {
  chownSync(file, 0, 0);
  chmodSync(file, 0o444);
}

export class SavedGuest implements Template {
  readonly #copy: Template['start'];
  readonly #release: () => Promise<void>;
  #gone = false;

  /** `copy`: starts a machine of it; `release`: takes back what is kept of it, once, and not from its copies. */
  constructor(copy: Template['start'], release: () => Promise<void>) {
    this.#copy = copy;
    this.#release = release;
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    if (this.#gone) throw new PolydevError('machine_start_failed', 'the template was removed');
    return this.#copy(spec, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#gone) return;
    this.#gone = true;
    await this.#release();
  }
}

/**
 * Waits until the guest has booted and come to rest, and has written its disk. Throws `machine_start_failed` when it fails, or
 * `signal` aborts.
 */
export async function untilSettled(
  machine: Machine,
  token: string,
  slowdown: number,
  signal: AbortSignal,
): Promise<void> {
  const dial: Dial = (port, limit) => machine.dial(port, limit);
  const over = new AbortController();
  void machine.exited.then(() => over.abort());
  const either = AbortSignal.any([signal, over.signal]);
  let last = 'hypervisor';
  try {
    for (;;) {
      const limit = AbortSignal.any([either, AbortSignal.timeout(10_000 * slowdown)]);
      const said = await askAgent(dial, { token, path: '/health' }, limit).catch(() => undefined);
      const health = said === undefined ? undefined : AgentHealth.parse(JSON.parse(said.text));
      if (health?.failure != null) throw new PolydevError('machine_start_failed', health.failure.message);
      const stamps = health?.stamps.map(({ checkpoint }) => checkpoint) ?? [];
      last = stamps.at(-1) ?? last;
      if (stamps.includes('provider') && stamps.includes(READY_AT[machine.spec.kind])) break;
      await sleep(POLL_MS * slowdown, undefined, { signal: either });
    }
    await sleep(SETTLE_MS[machine.spec.kind] * slowdown, undefined, { signal: either });
    // What a copy does first is in the guest's memory then, and waits there for its input.
    const woke = (): Woke => ({ time: new Date().toISOString(), entropyBase64: entropy(), prepare: true });
    await askAgent(dial, { token, path: '/v1/woke', body: woke }, either);
    // A copy is told who it is before the person's programs go on, which the agent sees to: they would take its time, and see another machine.
    const script = 'sync; kill -s STOP -- -1';
    const body = (): ExecRequest => ({ argv: ['sh', '-c', script], timeoutMs: 60_000 });
    await askAgent(dial, { token, path: '/v1/exec', body }, either);
  } catch (error) {
    if (!either.aborted) throw error;
    const how = over.signal.aborted ? 'it ended' : 'it took too long';
    throw new PolydevError('machine_start_failed', `${how}; its last checkpoint was ${last}`, {
      cause: error,
    });
  }
}

const entropy = (): string => randomBytes(64).toString('base64');

/** Makes a machine of its own out of a copy, in one call once its clock is known. Throws what the agent says. */
export async function tellWhoItIs(
  dial: Dial,
  token: string,
  { config, attachment }: { config: GuestConfig; attachment: Attachment },
  signal: AbortSignal,
): Promise<void> {
  const { address, mac, gateway } = attachment;
  const link: Link = { address, mac, gateway, networkd: networkdFile(attachment) };
  const clock = await readClock(async () => {
    const { text, ms } = await askAgent(dial, { token, path: '/v1/clock' }, signal);
    return { uptimeMs: AgentClock.parse(parseJson(text)).uptimeMs, tookMs: ms };
  });
  const body = (): Become => ({ config, link, wake: { ...clock, entropyBase64: entropy() } });
  await askAgent(dial, { token, path: '/v1/become', body }, signal);
}
