/** boot/: the boot checklist, and what the agent sets up in the system before the person's programs start. */
import type { BootEvent } from '../../protocol/agent.ts';
import type { PolydevError } from '../../protocol/errors.ts';
import {
  BEFORE_INIT,
  type Checkpoint,
  checklist,
  type MachineKind,
  type Stamp,
} from '../../protocol/machine.ts';
import { Feed } from '../feed.ts';

/** Stamps of the guest's part of the boot; what is the host's is not waited for here. */
export class BootChecklist {
  readonly #expected: readonly Checkpoint[];
  readonly #stamps = new Map<Checkpoint, Stamp>();
  #feed = new Feed<BootEvent>();
  #failure: PolydevError | undefined;
  #ready = false;

  constructor(kind: MachineKind) {
    this.#expected = checklist(kind).filter((checkpoint) => !BEFORE_INIT.includes(checkpoint));
  }

  get stamps(): Stamp[] {
    return this.#expected.flatMap((checkpoint) => this.#stamps.get(checkpoint) ?? []);
  }

  get ready(): boolean {
    return this.#ready;
  }

  get failure(): PolydevError | undefined {
    return this.#failure;
  }

  /** The first stamp of a checkpoint counts; `at` is milliseconds since 1970. */
  stamp(checkpoint: Checkpoint, at = Date.now()): void {
    if (this.#stamps.has(checkpoint) || this.#failure !== undefined) return;
    const stamp = { checkpoint, at: new Date(at).toISOString() };
    this.#stamps.set(checkpoint, stamp);
    this.#feed.push({ type: 'stamp', stamp });
    if (this.#expected.every((one) => this.#stamps.has(one))) {
      this.#ready = true;
      this.#feed.push({ type: 'ready' });
      this.#feed.close();
    }
  }

  /**
   * In a copy of another machine: that one's checkpoints were reached here, by this machine, at this moment. Whoever reads
   * the events of the other one gets no more.
   */
  restamp(): void {
    const reached = this.stamps.map(({ checkpoint }) => checkpoint);
    this.#feed.close();
    this.#feed = new Feed();
    this.#stamps.clear();
    this.#ready = false;
    for (const checkpoint of reached) this.stamp(checkpoint);
    if (this.#failure === undefined) return;
    this.#feed.push({ type: 'failed', error: this.#failure.toReport() });
    this.#feed.close();
  }

  /** Ends the boot. Later, when the machine is ready, it makes `/health` say that the machine does not work. */
  fail(error: PolydevError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#ready = false;
    this.#feed.push({ type: 'failed', error: error.toReport() });
    this.#feed.close();
  }

  events(signal: AbortSignal): AsyncIterable<BootEvent> {
    return this.#feed.read('start', signal);
  }
}
