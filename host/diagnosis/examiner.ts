/** Puts a case together from the evidence of a machine and from what can be looked up now, and has it diagnosed. */
import type { z } from 'zod';
import type { Diagnosis, DiagnosisRequest } from '../../protocol/diagnoses.ts';
import { Diagnosis as DiagnosisSchema } from '../../protocol/diagnoses.ts';
import { ErrorReport, PolydevError } from '../../protocol/errors.ts';
import { HostMachine } from '../../protocol/host.ts';
import type { ImageId, MachineId } from '../../protocol/ids.ts';
import type { ExitReport, MachineSpec, Stamp } from '../../protocol/machine.ts';
import type { Driver } from '../drivers/driver.ts';
import type { Evidence } from '../evidence/evidence.ts';
import { Facts, hostFacts, imageFacts } from '../evidence/facts.ts';
import type { ImageStore } from '../images/store.ts';
import type { Network } from '../network/network.ts';
import type { Case } from './case.ts';
import { diagnose } from './diagnose.ts';

/** A machine as its manager knows it. */
export interface Examined {
  readonly spec: MachineSpec;
  readonly image: ImageId;
  readonly state: HostMachine['state'];
  readonly exit: ExitReport | null;
  /** The host is ending it at this moment. */
  readonly ending: boolean;
  readonly stamps: readonly Stamp[];
  /** Up to date. */
  readonly console: string;
}

export interface ExaminerOptions {
  readonly evidence: Evidence;
  readonly dataDir: string;
  readonly imageCacheDir: string;
  readonly images: ImageStore;
  readonly network: Network;
  readonly driver: Driver;
  /** Sees every case; for the fault corpus, which records them. */
  readonly onCase?: ((id: MachineId, found: Case) => void) | undefined;
}

/** Words that make it worth reading a gigabyte of image again. */
const SUSPECT_IMAGE = /input\/output error|\bEIO\b|EUCLEAN|needs cleaning|superblock|mounting /i;
const MAX_TEXT = 512 * 1024;

export class Examiner {
  readonly #options: ExaminerOptions;

  constructor(options: ExaminerOptions) {
    this.#options = options;
  }

  /** What is so now. `active` also asks, from inside the machine, what it needs of its network (up to 2 s). */
  async facts(spec: MachineSpec, image: ImageId, active: boolean): Promise<Facts> {
    const { dataDir, images, imageCacheDir, network, driver } = this.#options;
    const [host, ofImage, guest, ofNetwork] = await Promise.all([
      hostFacts(dataDir),
      imageFacts(images, imageCacheDir, image, false).catch(() => null),
      driver.inspect?.(spec).catch(() => null) ?? null,
      network.inspect(spec.id, spec.realm, active).catch(() => null),
    ]);
    return { ...host, image: ofImage, guest, network: ofNetwork };
  }

  /** @throws not_found when neither the machine nor evidence of it is here */
  async diagnose(
    id: MachineId,
    machine: Examined | undefined,
    request: DiagnosisRequest,
  ): Promise<Diagnosis | null> {
    const { evidence } = this.#options;
    if (!request.keep) {
      const kept = await this.#kept(id, 'diagnosis.json', DiagnosisSchema);
      if (kept !== undefined) return kept;
    }
    const found = await this.#case(id, machine, request);
    this.#options.onCase?.(id, found);
    const diagnosis = diagnose(found);
    if (request.keep && diagnosis !== null) {
      // A disk that is full is among the answers: it must not keep the answer from being given.
      await evidence
        .keep(id, {
          'diagnosis.json': JSON.stringify(diagnosis, null, 2),
          'facts-failure.json': JSON.stringify(found.facts, null, 2),
        })
        .catch(() => undefined);
    }
    return diagnosis;
  }

  async #case(id: MachineId, machine: Examined | undefined, request: DiagnosisRequest): Promise<Case> {
    const { evidence, driver } = this.#options;
    const left = await this.#kept(id, 'machine.json', HostMachine);
    if (machine === undefined && left === undefined && request.error === null) {
      throw new PolydevError('not_found', `nothing is known of machine ${id}`);
    }
    const text = async (name: string): Promise<string> => (await evidence.text(id, name)).slice(-MAX_TEXT);
    const running = machine?.state === 'running';
    // A guest that failed and cannot be asked, or the controller would have brought it.
    if (running && request.keep && driver.journal !== undefined && (await text('journal.log')) === '') {
      await evidence.keepJournal(id, () => driver.journal?.(id, false)).catch(() => undefined);
    }
    // Of a machine that is here, what its driver has now; it becomes evidence when the machine goes.
    const own = machine === undefined ? undefined : await driver.evidence?.(id).catch(() => undefined);
    const ofDriver = async (name: string): Promise<string> =>
      own?.[name]?.slice(-MAX_TEXT) ?? (await text(name));
    const texts = {
      'console.log': machine?.console.slice(-MAX_TEXT) ?? (await text('console.log')),
      'agent.log': await text('agent.log'),
      'journal.log': await text('journal.log'),
      'runtime.log': await ofDriver('runtime.log'),
      'hypervisor.log': await ofDriver('hypervisor.log'),
    };
    const recorded = running ? undefined : await this.#kept(id, 'facts-failure.json', Facts);
    const now = async (): Promise<Facts> =>
      machine === undefined
        ? { ...(await hostFacts(this.#options.dataDir)), image: null, guest: null, network: null }
        : this.facts(machine.spec, machine.image, running);
    const facts = recorded ?? (await now());
    const error = request.error ?? (await this.#kept(id, 'start-error.json', ErrorReport)) ?? null;
    const said = `${error?.message ?? ''}\n${texts['console.log']}`;
    if (facts.image !== null && !running && SUSPECT_IMAGE.test(said)) {
      const { images, imageCacheDir } = this.#options;
      facts.image = (await imageFacts(images, imageCacheDir, facts.image.id, true)) ?? facts.image;
    }
    return {
      kind: machine?.spec.kind ?? left?.kind ?? 'browser',
      realm: machine?.spec.realm ?? left?.realm ?? 'internet',
      exit: machine === undefined ? (left?.exit ?? null) : machine.exit,
      error,
      stamps: inOrder([...request.stamps, ...(machine?.stamps ?? left?.stamps ?? [])]),
      agentVersion: request.agentVersion,
      guestNetwork: request.guestNetwork,
      texts,
      facts,
    };
  }

  async #kept<T>(id: MachineId, name: string, schema: z.ZodType<T>): Promise<T | undefined> {
    try {
      return schema.parse(JSON.parse(await this.#options.evidence.text(id, name)));
    } catch {
      return undefined;
    }
  }
}

/** Each checkpoint once, in the order in which they were reached. */
function inOrder(stamps: readonly Stamp[]): Stamp[] {
  const first = new Map<string, Stamp>();
  for (const stamp of [...stamps].sort((a, b) => Date.parse(a.at) - Date.parse(b.at))) {
    if (!first.has(stamp.checkpoint)) first.set(stamp.checkpoint, stamp);
  }
  return [...first.values()];
}
