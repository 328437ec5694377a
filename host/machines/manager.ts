/**
 * host/machines/: every machine of this host. One writer per machine; what is known of one is in its folder, so that
 * a new host service goes on where the last one was killed. Removing the folder is the clean-up.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import type { EvidenceFile, HostMachine, UploadedEvidence } from '../../protocol/host.ts';
import { type ImageId, MachineId } from '../../protocol/ids.ts';
import type { ExitReport, MachineSpec } from '../../protocol/machine.ts';
import { redactConsole } from '../../protocol/redact.ts';
import type { Examined } from '../diagnosis/examiner.ts';
import type { Driver, Machine } from '../drivers/driver.ts';
import { wasStarted } from '../drivers/survivors.ts';
import type { Evidence } from '../evidence/evidence.ts';
import { listIfThere, parseJson, readIfThere, writeAtomic } from '../system/files.ts';
import { diskMiBOf, type Entry, MachineRecord, newEntry } from './entry.ts';
import { Keeper } from './keeper.ts';
import { KeyedQueue } from './queue.ts';
import type { Promised } from './space.ts';

export interface ManagerOptions {
  driver: Driver;
  /** Starts a machine, of the driver or a copy of its template. */
  start: Driver['start'];
  /** `<machinesFolder>/<id>`; the driver keeps its own things in the same folder. */
  machinesFolder: string;
  evidence: Evidence;
  /** The console a driver left in a machine's folder. */
  readConsole: (folder: string) => Promise<string>;
  /** Throws `host_out_of_space` when no machine may start with this much more promised to it. */
  checkSpace: (promised: Promised) => Promise<void>;
  currentImage: () => Promise<ImageId | undefined>;
  /** What is so around a machine, for its evidence. */
  facts: (spec: MachineSpec, image: ImageId) => Promise<object>;
  log: Logger;
}

/** For a start, a stop, and falling asleep; times the driver's slowdown. Who asked may wait for less and ask again. */
const DEADLINE_MS = 60_000;

export class MachineManager {
  readonly #options: ManagerOptions;
  readonly #entries = new Map<MachineId, Entry>();
  readonly #queue = new KeyedQueue();
  readonly #keeper: Keeper;
  #closing = false;
  /** Promised to machines that are not listed yet. */
  #promisingMiB = 0;

  constructor(options: ManagerOptions) {
    this.#options = options;
    this.#keeper = new Keeper(options);
  }

  #folder(id: MachineId): string {
    return join(this.#options.machinesFolder, id);
  }

  /** Takes up what an earlier host service left: running machines go on, the rest is known as it ended. */
  async takeOver(): Promise<void> {
    const { machinesFolder, driver, log } = this.#options;
    for (const name of await listIfThere(machinesFolder)) {
      const id = MachineId.safeParse(name);
      const text = await readIfThere(join(machinesFolder, name, 'record.json'));
      if (!id.success) continue;
      if (text === undefined) {
        // Killed before the machine was promised to anybody.
        await driver.reclaim(id.data, { disk: true });
        await rm(this.#folder(id.data), { recursive: true, force: true });
        continue;
      }
      const record = MachineRecord.safeParse(parseJson(text));
      if (!record.success) {
        // Nothing is known of it, so nothing is thrown away: its disk may be somebody's.
        log.error({ machine: id.data, err: record.error }, 'its record cannot be read; left as it is');
        await driver.reclaim(id.data, { disk: false });
        continue;
      }
      const { spec, image, exit } = record.data;
      if (spec.kind === 'browser' && exit === null && !(await wasStarted(this.#folder(id.data)))) {
        // Killed in the middle of its start: whoever asks for it again gets a new one, as if nothing had been.
        log.warn({ machine: id.data }, 'its start was cut off; taken back');
        await driver.reclaim(id.data, { disk: true });
        await rm(this.#folder(id.data), { recursive: true, force: true });
        continue;
      }
      const entry = newEntry(spec, image);
      entry.exit = exit;
      this.#entries.set(id.data, entry);
      if ((await driver.asleep?.(id.data)) === true) {
        entry.state = 'hibernated';
        log.info({ machine: id.data, state: entry.state }, 'taken over');
        continue;
      }
      const machine = await driver.adopt(id.data);
      if (machine === undefined) {
        await driver.reclaim(id.data, { disk: false });
        entry.state = spec.kind === 'cli' ? 'stopped' : 'exited';
      } else {
        this.#runs(entry, machine);
      }
      log.info({ machine: id.data, state: entry.state }, 'taken over');
    }
  }

  /** Names whose things must not be reclaimed. */
  get ids(): ReadonlySet<string> {
    return new Set(this.#entries.keys());
  }

  get runningCount(): number {
    return [...this.#entries.values()].filter(({ state }) => state === 'running').length;
  }

  /** The sizes of all private disks together, MiB. */
  get promisedDiskMiB(): number {
    return [...this.#entries.values()].reduce((sum, { spec }) => sum + diskMiBOf(spec), 0);
  }

  list(): HostMachine[] {
    return [...this.#entries.values()].map((entry) => this.#describe(entry));
  }

  /** Throws `not_found`. */
  get(id: MachineId): HostMachine {
    return this.#describe(this.#entry(id));
  }

  #entry(id: MachineId): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new PolydevError('not_found', `this host has no machine ${id}`);
    return entry;
  }

  #describe(entry: Entry): HostMachine {
    const { spec, image, state, address, stamps, exit } = entry;
    return {
      id: spec.id,
      kind: spec.kind,
      realm: spec.realm,
      state,
      driver: this.#options.driver.name,
      sleep: this.#options.driver.sleep,
      slowdown: this.#options.driver.slowdown,
      image,
      address,
      stamps: [...stamps],
      exit,
      ...(entry.copied ? { copied: true } : {}),
    };
  }

  /**
   * Brings a machine to `running`. The same id again returns the running one; one that hibernates goes on where it was; a
   * stopped CLI machine starts again on its disk; a browser machine that ended stays ended, it is single use. Throws `conflict` for another spec,
   * `host_out_of_space`.
   */
  put(spec: MachineSpec): Promise<HostMachine> {
    if (this.#closing) throw new PolydevError('not_ready', 'the host service is stopping');
    return this.#queue.run(spec.id, () => this.#put(spec));
  }

  async #put(spec: MachineSpec): Promise<HostMachine> {
    const known = this.#entries.get(spec.id);
    if (known !== undefined) {
      const fixed = known.spec.kind === spec.kind && known.spec.realm === spec.realm;
      const same = JSON.stringify(known.spec) === JSON.stringify(spec);
      if (!fixed || (known.state === 'running' && !same)) {
        throw new PolydevError('conflict', `machine ${spec.id} exists with another specification`);
      }
      if (known.state === 'hibernated') return this.#resume(known);
      if (known.state === 'running' || spec.kind === 'browser') return this.#describe(known);
    }
    const image = spec.image ?? known?.image ?? (await this.#options.currentImage());
    if (image === undefined) throw new PolydevError('image_missing', 'this host has no current image');
    const wanted = known === undefined ? diskMiBOf(spec) : 0;
    // Several start at once: each counts from the moment it is looked at.
    const used = this.promisedDiskMiB + this.#promisingMiB;
    this.#promisingMiB += wanted;
    try {
      await this.#options.checkSpace({ used, wanted });
    } finally {
      this.#promisingMiB -= wanted;
    }
    return this.#start(spec, image, known);
  }

  async #start(spec: MachineSpec, image: ImageId, known: Entry | undefined): Promise<HostMachine> {
    const { start, log } = this.#options;
    const begin = performance.now();
    const entry = newEntry(spec, image);
    entry.starting = new AbortController();
    const signal = AbortSignal.any([entry.starting.signal, AbortSignal.timeout(this.#deadlineMs)]);
    this.#entries.set(spec.id, entry);
    try {
      await mkdir(this.#folder(spec.id), { recursive: true, mode: 0o700 });
      await this.#record(entry);
      await this.#options.evidence.forget(spec.id, [
        'start-error.json',
        'facts-failure.json',
        'diagnosis.json',
        'journal.log',
      ]);
      this.#runs(entry, await start({ ...spec, image }, signal));
      log.info({ machine: spec.id, kind: spec.kind, ms: Math.round(performance.now() - begin) }, 'started');
      void this.#keeper.facts(entry, 'facts-start.json');
      return this.#describe(entry);
    } catch (thrown) {
      // Whoever ended the start says why, better than the command it hit.
      const reason: unknown = entry.starting.signal.aborted ? entry.starting.signal.reason : thrown;
      const error = PolydevError.from(reason, 'machine_start_failed');
      log.error({ machine: spec.id, err: error, thrown }, 'did not start');
      await this.#keeper.facts(entry, 'facts-failure.json');
      // A full disk keeps us from writing why; whoever asked is told all the same.
      await this.#keeper
        .all(entry, this.#describe(entry), {
          'start-error.json': JSON.stringify(error.toReport(), null, 2),
        })
        .catch((err: unknown) => log.error({ machine: spec.id, err }, 'its evidence was not kept'));
      await this.#giveUp(entry, known === undefined);
      throw error;
    } finally {
      entry.starting = undefined;
    }
  }

  /** After a failed start. When something cannot be taken back, the machine stays listed, so that DELETE tries again. */
  async #giveUp(entry: Entry, isNew: boolean): Promise<void> {
    const { id } = entry.spec;
    entry.state = isNew ? 'exited' : 'stopped';
    try {
      await this.#options.driver.reclaim(id, { disk: isNew });
      if (isNew) await this.#forget(id);
    } catch (err) {
      this.#options.log.error({ machine: id, err }, 'not taken back');
    }
  }

  #runs(entry: Entry, machine: Machine): void {
    entry.machine = machine;
    entry.state = 'running';
    entry.ending = false;
    entry.exit = null;
    entry.address = machine.address;
    entry.stamps = machine.stamps;
    entry.copied = machine.copied === true;
    void machine.exited.then((exit) => {
      if (entry.ending || entry.machine !== machine) return;
      this.#options.log.warn({ machine: machine.id, exit }, 'ended by itself');
      void this.#queue
        .run(machine.id, async () => {
          if (entry.machine !== machine) return;
          entry.exit = exit;
          await this.#keeper.facts(entry, 'facts-failure.json');
          await this.#keeper.journal(entry);
          await this.#release(entry, machine, 'exited');
        })
        .catch((err: unknown) => this.#options.log.error({ machine: machine.id, err }, 'not taken back'));
    });
  }

  /** Ends the guest if it runs and takes back all but the disk. */
  async #release(entry: Entry, machine: Machine, state: 'stopped' | 'exited'): Promise<void> {
    entry.ending = true;
    const exit = await machine.stop(AbortSignal.timeout(this.#deadlineMs));
    entry.machine = undefined;
    entry.state = state;
    entry.address = null;
    entry.exit = exit;
    await this.#record(entry);
    entry.ended.resolve(exit);
  }

  #record({ spec, image, exit }: Entry): Promise<void> {
    const record: z.infer<typeof MachineRecord> = { spec, image, exit };
    return writeAtomic(join(this.#folder(spec.id), 'record.json'), JSON.stringify(record));
  }

  /**
   * Puts a running guest to sleep; one that sleeps stays as it is. Throws `not_found`, `conflict` when it does not run,
   * `machine_hibernate_failed` when it runs on.
   */
  hibernate(id: MachineId): Promise<HostMachine> {
    return this.#queue.run(id, async () => {
      const entry = this.#entry(id);
      const { machine } = entry;
      if (entry.state === 'hibernated') return this.#describe(entry);
      if (machine === undefined) {
        throw new PolydevError('conflict', `machine ${id} is ${entry.state} and cannot hibernate`);
      }
      if (machine.hibernate === undefined) {
        throw new PolydevError(
          'machine_hibernate_failed',
          'the driver of this host cannot hibernate machines',
        );
      }
      // Nobody answers on them any more, and whoever waits must learn that.
      for (const channel of entry.channels) channel.destroy();
      await machine.hibernate(AbortSignal.timeout(this.#deadlineMs));
      entry.machine = undefined;
      entry.state = 'hibernated';
      entry.address = null;
      this.#options.log.info({ machine: id }, 'hibernated');
      return this.#describe(entry);
    });
  }

  /**
   * Lets one that hibernates go on where it was; a running one stays as it is. Throws `not_found`, `conflict` when it does
   * not hibernate, `machine_resume_failed`: then it is stopped, and starts from its disk.
   */
  resume(id: MachineId): Promise<HostMachine> {
    if (this.#closing) throw new PolydevError('not_ready', 'the host service is stopping');
    return this.#queue.run(id, async () => {
      const entry = this.#entry(id);
      if (entry.state === 'running') return this.#describe(entry);
      if (entry.state === 'hibernated') return this.#resume(entry);
      throw new PolydevError('conflict', `machine ${id} is ${entry.state} and does not hibernate`);
    });
  }

  async #resume(entry: Entry): Promise<HostMachine> {
    const { driver, log } = this.#options;
    const { spec, image } = entry;
    const begin = performance.now();
    try {
      if (driver.resume === undefined) throw new Error('the driver of this host cannot resume machines');
      const machine = await driver.resume({ ...spec, image }, AbortSignal.timeout(this.#deadlineMs));
      this.#runs(entry, machine);
      log.info({ machine: spec.id, ms: Math.round(performance.now() - begin) }, 'resumed');
      return this.#describe(entry);
    } catch (thrown) {
      const error = PolydevError.from(thrown, 'machine_resume_failed');
      log.error({ machine: spec.id, err: error, thrown }, 'did not resume');
      entry.state = 'stopped';
      await driver.reclaim(spec.id, { disk: false });
      if (error.code === 'machine_resume_failed') throw error;
      throw new PolydevError('machine_resume_failed', error.message, { cause: thrown });
    }
  }

  get #deadlineMs(): number {
    return DEADLINE_MS * this.#options.driver.slowdown;
  }

  /** Ends the guest, also one that hibernates; the disk stays. Throws `not_found`. */
  stop(id: MachineId): Promise<HostMachine> {
    this.#entry(id).starting?.abort(new PolydevError('conflict', 'stopped while it started'));
    return this.#queue.run(id, async () => {
      const entry = this.#entry(id);
      if (entry.machine !== undefined) await this.#release(entry, entry.machine, 'stopped');
      if (entry.state === 'hibernated') {
        await this.#options.driver.reclaim(id, { disk: false });
        entry.state = 'stopped';
      }
      return this.#describe(entry);
    });
  }

  /** Removes a machine and all it holds; the evidence stays. Unknown ids are fine. */
  destroy(id: MachineId): Promise<void> {
    this.#entries.get(id)?.starting?.abort(new PolydevError('conflict', 'destroyed while it started'));
    return this.#queue.run(id, async () => {
      const entry = this.#entries.get(id);
      if (entry === undefined) return;
      const machine = entry.machine;
      entry.machine = undefined;
      if (machine === undefined) {
        await this.#options.driver.reclaim(id, { disk: true });
      } else {
        await machine[Symbol.asyncDispose]();
        entry.exit = await machine.exited;
      }
      entry.state = 'exited';
      await this.#keeper.all(entry, this.#describe(entry));
      await this.#forget(id);
      if (entry.exit !== null) entry.ended.resolve(entry.exit);
      this.#options.log.info({ machine: id }, 'destroyed');
    });
  }

  async #forget(id: MachineId): Promise<void> {
    await rm(this.#folder(id), { recursive: true, force: true });
    this.#entries.delete(id);
  }

  /** How it ended, waiting for that at most `waitMs`. Null while it runs. Throws `not_found`. */
  async exit(id: MachineId, waitMs: number): Promise<ExitReport | null> {
    const entry = this.#entry(id);
    if (entry.state !== 'running' || waitMs === 0) return entry.exit;
    const { promise: late, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(() => resolve(null), waitMs);
    try {
      return await Promise.race([entry.ended.promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Throws `not_found`, `machine_unreachable`. */
  async dial(id: MachineId, port: number, signal: AbortSignal): Promise<Duplex> {
    const { machine, channels } = this.#entry(id);
    if (machine === undefined) throw new PolydevError('machine_unreachable', `machine ${id} does not run`);
    const channel = await machine.dial(port, signal);
    channels.add(channel);
    channel.once('close', () => channels.delete(channel));
    return channel;
  }

  /** What the guest printed, without secrets; also of a machine that is gone. Throws `not_found`. */
  async console(id: MachineId): Promise<string> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return (await this.#options.evidence.read(id, 'console.log')).toString('utf8');
    return redactConsole(await (entry.machine?.console() ?? this.#options.readConsole(this.#folder(id))));
  }

  /** Files of evidence, brought up to date while the machine is here. */
  async evidence(id: MachineId): Promise<EvidenceFile[]> {
    await this.#refreshEvidence(id);
    return this.#options.evidence.list(id);
  }

  async readEvidence(id: MachineId, name: string): Promise<Buffer> {
    await this.#refreshEvidence(id);
    return this.#options.evidence.read(id, name);
  }

  /** Adds what the controller has seen. Throws `not_found` for a machine that this host never had. */
  async addEvidence(id: MachineId, name: UploadedEvidence, content: Buffer): Promise<void> {
    const { evidence } = this.#options;
    if (!this.#entries.has(id) && !(await evidence.has(id))) this.#entry(id);
    await evidence.keep(id, { [name]: content });
  }

  /** For a diagnosis; undefined when the machine is gone. */
  async examined(id: MachineId): Promise<Examined | undefined> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    const { spec, image, state, exit, stamps, ending } = entry;
    return { spec, image, state, exit, stamps, ending, console: await this.console(id) };
  }

  async #refreshEvidence(id: MachineId): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    await entry.machine?.console(); // what was printed a moment ago is in the files then
    const ended = (): boolean => entry.state === 'stopped' || entry.state === 'exited';
    if (ended() && entry.starting === undefined && !entry.journalRead) {
      await this.#queue.run(id, async () => {
        if (ended() && this.#entries.get(id) === entry) await this.#keeper.journal(entry);
      });
    }
    await this.#keeper.all(entry, this.#describe(entry));
  }

  /**
   * Full stop: browser machines are destroyed, CLI machines end and keep their disk. Those that sleep on disk sleep on;
   * what is frozen ends with its host service.
   */
  async close(): Promise<void> {
    this.#closing = true;
    const sleepsOn = ({ state }: Entry): boolean =>
      state === 'hibernated' && this.#options.driver.sleep === 'disk';
    const all = [...this.#entries.values()].filter((entry) => !sleepsOn(entry));
    const results = await Promise.allSettled(
      all.map(({ spec }) => (spec.kind === 'browser' ? this.destroy(spec.id) : this.stop(spec.id))),
    );
    const failures = results
      .filter((result) => result.status === 'rejected')
      .map(({ reason }) => reason as unknown);
    if (failures.length > 0) throw new AggregateError(failures, 'machines did not end');
  }
}
