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
  AgentHealth,
  type Become,
  type ExecRequest,
  type Link,
  type Woke,
  WokeReply,
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
/** How far a copy's clock may be off; setting it again would not make it better on a busy computer. */
const CLOCK_NEAR_MS = 50;
const CLOCK_ATTEMPTS = 5;

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
    // What a copy does first is in the guest's memory then.
    await askAgent(dial, { token, path: '/v1/woke', body: () => wokeNow() }, either);
    // A copy is told who it is before the person's programs go on, which the agent sees to: they would take its time, and see another machine.
    const script = 'ip link > /dev/null; sync; kill -s STOP -- -1';
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

const wokeNow = (wayMs = 0): Woke => ({
  time: new Date(Date.now() + wayMs).toISOString(),
  entropyBase64: randomBytes(64).toString('base64'),
});

/**
 * Gives a copy random numbers of its own and the time, which it is told until it is right: what the way there takes is only known
 * afterwards, as half of what the call took without the guest's own part. Throws `machine_start_failed` when it stays wrong.
 */
async function tellTime(dial: Dial, token: string, signal: AbortSignal): Promise<void> {
  let wayMs = 0;
  let offMs = 0;
  for (let attempt = 0; attempt < CLOCK_ATTEMPTS; attempt++) {
    let sent = 0;
    const body = (): Woke => {
      sent = Date.now();
      return wokeNow(wayMs);
    };
    const { text, ms } = await askAgent(dial, { token, path: '/v1/woke', body }, signal);
    const { time, aheadMs, clockSet, reseeded } = WokeReply.parse(parseJson(text));
    if (!reseeded) throw new PolydevError('machine_start_failed', 'a copy took no random numbers of its own');
    // By the guest's clock as it is now: when it was asked, and how long it worked.
    const asked = sent + wayMs + (clockSet ? 0 : aheadMs);
    const way = Math.max(ms - (Date.parse(time) - asked), 0) / 2;
    offMs = asked - (sent + way);
    if (Math.abs(offMs) <= CLOCK_NEAR_MS) return;
    wayMs = way;
  }
  throw new PolydevError('machine_start_failed', `the clock of a copy stays ${Math.round(offMs)} ms off`);
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
  // The first answer takes longer than any later one: nothing in the guest is warm.
  await askAgent(dial, { token, path: '/health' }, signal);
  await tellTime(dial, token, signal);
  const body = (): Become => ({ config, link });
  await askAgent(dial, { token, path: '/v1/become', body }, signal);
}
