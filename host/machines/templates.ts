/**
 * Snapshot start: browser machines that are like one that booted before are copies of a template, where the driver can make one.
 * The first of a kind boots; when no machine has been started for a while, the host makes a template in the background. A copy that
 * fails boots instead: whoever asked for a machine gets one, or hears why not.
 */
import type { Logger } from 'pino';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineSpec } from '../../protocol/machine.ts';
import type { Driver, Machine, Template } from '../drivers/driver.ts';
import { LOW_DISK_MIB } from './space.ts';

export interface TemplatesOptions {
  driver: Pick<Driver, 'start' | 'makeTemplate' | 'templateDiskMiB' | 'slowdown'>;
  /** How long no machine must have been started before a template is made; null: none is ever made. */
  idleSeconds: number | null;
  /** What of the host is free, MiB: memory, and disk under the data directory. */
  available: () => Promise<{ memory: number; disk: number }>;
  log: Logger;
}

/** Each holds the memory of a booted guest. */
const MAX_TEMPLATES = 2;
/** Of one kind, in the life of a host service: what made one useless may make the next so. One that fails is not tried again. */
const MAX_TRIES = 3;
/** Times the driver's slowdown. A start may take a minute of the same: a copy that hangs leaves enough of it to begin a boot. */
const COPY_MS = 45_000;
/** Times the driver's slowdown. */
const MAKE_MS = 120_000;
/** Free memory that making one leaves, as a part of the machine's own. */
const MEMORY_RESERVE = 1;

/** Machines with the same are copies of one template. */
const keyOf = ({ kind, realm, image, limits, display }: MachineSpec): string =>
  JSON.stringify([kind, realm, image, limits, display]);

interface Kept {
  template: Template;
  image: MachineSpec['image'];
}

export class Templates implements AsyncDisposable {
  readonly #options: TemplatesOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #tries = new Map<string, number>();
  readonly #closing = new AbortController();
  /** Starts under way, and when the last one began. */
  #starting = 0;
  #lastStart = 0;
  #wanted: MachineSpec | undefined;
  #timer: NodeJS.Timeout | undefined;
  #making: Promise<void> | undefined;

  constructor(options: TemplatesOptions) {
    this.#options = options;
  }

  /** Kinds of machines that start as copies now. */
  get count(): number {
    return this.#kept.size;
  }

  /** Starts a machine, as a copy where there is a template for it. Throws what Driver.start throws. */
  async start(spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const { driver } = this.#options;
    this.#starting += 1;
    this.#lastStart = performance.now();
    try {
      if (!this.#applies(spec)) return await driver.start(spec, signal);
      await this.#dropOtherImages(spec);
      const copy = await this.#copy(spec, signal);
      if (copy !== undefined) return copy;
      const machine = await driver.start(spec, signal);
      this.#want(spec);
      return machine;
    } finally {
      this.#starting -= 1;
    }
  }

  #applies({ kind }: MachineSpec): boolean {
    const { driver, idleSeconds } = this.#options;
    return driver.makeTemplate !== undefined && idleSeconds !== null && kind === 'browser';
  }

  /** Undefined when there is no template, or it is of no use. */
  async #copy(spec: MachineSpec, signal: AbortSignal): Promise<Machine | undefined> {
    const { driver, log } = this.#options;
    const key = keyOf(spec);
    const kept = this.#kept.get(key);
    if (kept === undefined) return undefined;
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(COPY_MS * driver.slowdown)]);
      return await kept.template.start(spec, limit);
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const err = PolydevError.from(thrown, 'machine_start_failed');
      log.warn({ machine: spec.id, err }, 'a copy did not start: it boots, and the template goes');
      await this.#drop(key);
      return undefined;
    }
  }

  #want(spec: MachineSpec): void {
    const key = keyOf(spec);
    if (this.#kept.has(key) || (this.#tries.get(key) ?? 0) >= MAX_TRIES) return;
    this.#wanted = spec;
    this.#lookLater();
  }

  #lookLater(): void {
    const { driver, idleSeconds } = this.#options;
    if (this.#timer !== undefined || this.#closing.signal.aborted || idleSeconds === null) return;
    const idleMs = idleSeconds * 1000 * driver.slowdown;
    const passed = performance.now() - this.#lastStart;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void this.#look(idleMs);
      },
      Math.max(idleMs - passed, 1000),
    );
    this.#timer.unref();
  }

  /** Makes the template that is wanted, if the host is idle; looks again later otherwise. */
  async #look(idleMs: number): Promise<void> {
    const spec = this.#wanted;
    if (spec === undefined || this.#making !== undefined) return;
    const room = await this.#hasRoom(spec);
    if (!room || this.#starting > 0 || performance.now() - this.#lastStart < idleMs) {
      this.#lookLater();
      return;
    }
    this.#wanted = undefined;
    this.#making = this.#make(spec).finally(() => {
      this.#making = undefined;
      if (this.#wanted !== undefined) this.#lookLater();
    });
  }

  async #hasRoom(spec: MachineSpec): Promise<boolean> {
    const { available, driver } = this.#options;
    const { memory, disk } = await available().catch(() => ({ memory: 0, disk: 0 }));
    const neededDisk = LOW_DISK_MIB + (driver.templateDiskMiB?.(spec) ?? 0);
    return memory >= spec.limits.memoryMiB * (1 + MEMORY_RESERVE) && disk >= neededDisk;
  }

  /** Never throws: machines boot without one. */
  async #make(spec: MachineSpec): Promise<void> {
    const { driver, log } = this.#options;
    const key = keyOf(spec);
    const about = { kind: spec.kind, realm: spec.realm, image: spec.image };
    const began = performance.now();
    this.#tries.set(key, (this.#tries.get(key) ?? 0) + 1);
    try {
      const timeout = AbortSignal.timeout(MAKE_MS * driver.slowdown);
      const template = await driver.makeTemplate?.(spec, AbortSignal.any([this.#closing.signal, timeout]));
      if (template === undefined) return;
      this.#kept.set(key, { template, image: spec.image });
      log.info({ ...about, ms: Math.round(performance.now() - began) }, 'template made');
      const [oldest] = this.#kept.keys();
      if (this.#kept.size > MAX_TEMPLATES && oldest !== undefined) await this.#drop(oldest);
    } catch (thrown) {
      if (this.#closing.signal.aborted) return;
      this.#tries.set(key, MAX_TRIES);
      const err = PolydevError.from(thrown, 'machine_start_failed');
      log.warn(
        { ...about, err },
        'no template was made: such machines boot until the host service starts again',
      );
    }
  }

  /** An image that is no longer asked for: its templates are of no use. */
  async #dropOtherImages({ image }: MachineSpec): Promise<void> {
    for (const [key, kept] of [...this.#kept]) if (kept.image !== image) await this.#drop(key);
  }

  async #drop(key: string): Promise<void> {
    const kept = this.#kept.get(key);
    this.#kept.delete(key);
    try {
      await kept?.template[Symbol.asyncDispose]();
    } catch (err) {
      this.#options.log.error({ err }, 'a template was not taken back whole');
    }
  }

  /** Ends one that is being made and removes all. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    this.#closing.abort(new PolydevError('not_ready', 'the host service is stopping'));
    await this.#making;
    for (const key of [...this.#kept.keys()]) await this.#drop(key);
  }
}
