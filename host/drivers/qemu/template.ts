/**
 * A template: a guest that booted, and was saved while nobody used it. Its memory is a sealed file without a name, which every copy
 * maps and changes for itself alone; its devices and its disk are files in a folder of its own. It ends with the host service: a
 * folder that one left behind is no machine's and is removed at the next start.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, closeSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AgentClock,
  AgentHealth,
  type Become,
  type ExecRequest,
  type Link,
  type Woke,
} from '../../../protocol/agent.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import type { ImageId } from '../../../protocol/ids.ts';
import type { Checkpoint, GuestConfig, MachineKind, MachineSpec } from '../../../protocol/machine.ts';
import type { Attachment } from '../../network/network.ts';
import { parseJson } from '../../system/files.ts';
import type { Machine, Template } from '../driver.ts';
import { askAgent, type Dial } from '../vm/agent.ts';
import { networkdFile } from '../vm/config.ts';
import { diskPath } from '../vm/disk.ts';
import type { Maker } from './state.ts';

/** Who is not there yet at this checkpoint of its boot is not copied. */
const READY_AT: Readonly<Record<MachineKind, Checkpoint>> = { browser: 'browser', cli: 'provider' };
/** What a browser does after its first page, so that its copies need not do it; times the driver's slowdown. */
const SETTLE_MS = 3_000;
const POLL_MS = 250;
/** How far a copy's clock may be off, at most. Nearer than the first it need not be; farther than the second it must not be. */
const CLOCK_NEAR_MS = 50;
const CLOCK_FAR_MS = 250;
const CLOCK_ATTEMPTS = 8;

const devicesPath = (folder: string): string => join(folder, 'devices');
const templateDisk = (folder: string): string => join(folder, 'template.img');

/** A guest that was saved, as the driver knows it. */
export interface Saved {
  folder: string;
  image: ImageId;
  /** Descriptor of its sealed memory. */
  memory: number;
  /** Bytes of its disk. */
  diskBytes: number;
  /** Of its channel, and of its agent. */
  mark: string;
  token: string;
  maker: Maker;
}

export class QemuTemplate implements Template {
  readonly #saved: Saved;
  readonly #copy: (spec: MachineSpec, signal: AbortSignal) => Promise<Machine>;
  readonly #release: () => Promise<void>;
  #gone = false;

  constructor(
    saved: Saved,
    copy: (spec: MachineSpec, signal: AbortSignal) => Promise<Machine>,
    release: () => Promise<void>,
  ) {
    this.#saved = saved;
    this.#copy = copy;
    this.#release = release;
  }

  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    if (this.#gone) throw new PolydevError('machine_start_failed', 'the template was removed');
    return this.#copy(spec, signal);
  }

  /** Its copies keep what they need of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#gone) return;
    this.#gone = true;
    closeSync(this.#saved.memory);
    await this.#release();
  }
}

export const pathsOf = (folder: string): { devices: string; disk: string } => ({
  devices: devicesPath(folder),
  disk: templateDisk(folder),
});

/** Its disk is nobody's now, and every hypervisor may read it. */
export async function giveDiskAway(folder: string): Promise<void> {
  const disk = templateDisk(folder);
  await rename(diskPath(folder), disk);
  chownSync(disk, 0, 0);
  chmodSync(disk, 0o444);
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
    await sleep(SETTLE_MS * slowdown, undefined, { signal: either });
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

/**
 * What time it is when the agent's own clock, which nobody sets, says what it says. The way there and back is known together only, so
 * that this is off by half of it at most: the shortest of some counts, and the first takes longest, as nothing in the guest is warm.
 * Throws `machine_start_failed` when none is short enough.
 */
async function readClock(
  dial: Dial,
  token: string,
  signal: AbortSignal,
): Promise<Omit<NonNullable<Become['wake']>, 'entropyBase64'>> {
  let best: { offMs: number; time: string; uptimeMs: number } | undefined;
  for (let attempt = 0; attempt < CLOCK_ATTEMPTS && (best?.offMs ?? Infinity) > CLOCK_NEAR_MS; attempt++) {
    const { text, ms } = await askAgent(dial, { token, path: '/v1/clock' }, signal);
    const offMs = ms / 2;
    const time = new Date(Date.now() - offMs).toISOString();
    const { uptimeMs } = AgentClock.parse(parseJson(text));
    if (best === undefined || offMs < best.offMs) best = { offMs, time, uptimeMs };
  }
  if (best !== undefined && best.offMs <= CLOCK_FAR_MS) return { time: best.time, uptimeMs: best.uptimeMs };
  throw new PolydevError(
    'machine_start_failed',
    `the clock of a copy cannot be known better than by ${Math.round(best?.offMs ?? 0)} ms`,
  );
}

/** Makes a machine of its own out of a copy. Throws what the agent says. */
export async function tellWhoItIs(
  dial: Dial,
  token: string,
  { config, attachment }: { config: GuestConfig; attachment: Attachment },
  signal: AbortSignal,
): Promise<void> {
  const { address, mac, gateway } = attachment;
  const link: Link = { address, mac, gateway, networkd: networkdFile(attachment) };
  const clock = await readClock(dial, token, signal);
  const body = (): Become => ({ config, link, wake: { ...clock, entropyBase64: entropy() } });
  await askAgent(dial, { token, path: '/v1/become', body }, signal);
}
