/**
 * Looks at machines that are ready, often and cheaply. Only when a rule sees something, or the agent does not answer as it
 * should, is the machine looked at as after a failure, with questions asked from inside it: that answer counts.
 */
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { LookRequest } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { type GuestFacts, hostFacts, imageFacts } from '../evidence/facts.ts';
import type { Case } from './case.ts';
import { diagnose } from './diagnose.ts';
import type { Examined, ExaminerOptions } from './examiner.ts';

/** A kill by the out-of-memory killer, or a refused process, counts as trouble for this long, ms. */
const RECENT_MS = 300_000;
/** What was not looked at for this long is gone, ms. */
const FORGET_MS = 3_600_000;

interface Counts {
  oomKills: number;
  refused: number;
}

interface Seen {
  /** Of the kernel, at the last look. */
  last: Counts;
  /** What is no news any more. */
  base: Counts;
  changedAt: number;
  lookedAt: number;
}

export type WatcherOptions = Pick<
  ExaminerOptions,
  'evidence' | 'dataDir' | 'images' | 'imageCacheDir' | 'network' | 'driver' | 'onCase'
>;

export class Watcher {
  readonly #options: WatcherOptions;
  readonly #seen = new Map<MachineId, Seen>();

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  /**
   * Null: nothing wrong is seen.
   * @throws conflict when it does not run, or is being ended: whoever follows its end tells that better
   */
  async look(id: MachineId, machine: Examined, request: LookRequest): Promise<Diagnosis | null> {
    if (machine.state !== 'running' || machine.ending) {
      throw new PolydevError('conflict', `machine ${id} does not run`);
    }
    const { network, driver } = this.#options;
    const { realm } = machine.spec;
    const guest = this.#news(id, (await driver.inspect?.(machine.spec).catch(() => null)) ?? null);
    const found: Case = {
      kind: machine.spec.kind,
      realm,
      exit: null,
      error: request.error,
      stamps: [...machine.stamps],
      agentVersion: request.agentVersion,
      guestNetwork: request.guestNetwork ?? null,
      texts: {},
      facts: {
        ...(await hostFacts(this.#options.dataDir)),
        image: null,
        guest,
        network: await network.glance(id, realm).catch(() => null),
      },
    };
    if (request.error === null && diagnose(found) === null) return null;
    const sure = await this.#thorough(id, machine, found);
    this.#options.onCase?.(id, sure);
    return diagnose(sure);
  }

  async #thorough(id: MachineId, machine: Examined, found: Case): Promise<Case> {
    const { images, imageCacheDir, network, evidence } = this.#options;
    if (found.facts === null) return found;
    const [image, ofNetwork, agentLog] = await Promise.all([
      imageFacts(images, imageCacheDir, machine.image, false).catch(() => null),
      network.inspect(id, machine.spec.realm, true).catch(() => null),
      evidence.text(id, 'agent.log'),
    ]);
    const texts = { 'console.log': machine.console, 'agent.log': agentLog };
    return { ...found, texts, facts: { ...found.facts, image, network: ofNetwork } };
  }

  /** The kernel counts since the machine's start; of that only what is recent is a trouble of now. */
  #news(id: MachineId, guest: GuestFacts | null): GuestFacts | null {
    if (guest === null) return null;
    const now = performance.now();
    for (const [other, { lookedAt }] of this.#seen) if (now - lookedAt > FORGET_MS) this.#seen.delete(other);
    const last = { oomKills: guest.oomKills, refused: guest.pids.refused };
    const none = { oomKills: 0, refused: 0 };
    const before = this.#seen.get(id) ?? { last, base: none, changedAt: now, lookedAt: now };
    // Less than before: it was started again.
    const again = last.oomKills < before.last.oomKills || last.refused < before.last.refused;
    const changed = last.oomKills !== before.last.oomKills || last.refused !== before.last.refused;
    const changedAt = changed ? now : before.changedAt;
    const base = again ? none : now - changedAt > RECENT_MS ? last : before.base;
    this.#seen.set(id, { last, base, changedAt, lookedAt: now });
    return {
      ...guest,
      oomKills: last.oomKills - base.oomKills,
      pids: { ...guest.pids, refused: last.refused - base.refused },
    };
  }
}
