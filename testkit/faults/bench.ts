/** Runs one fault: a real host service, its HTTP client, the controller's own code that follows a boot and keeps evidence. */
import { createHash, randomBytes } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAgentClient } from '../../controller/hosts/agent-client.ts';
import { createHostClient } from '../../controller/hosts/host-client.ts';
import { keepEvidence } from '../../controller/hosts/keep-evidence.ts';
import { type BootToFollow, followBoot } from '../../controller/workflows/boot.ts';
import { lookAt } from '../../controller/workflows/look.ts';
import { reportExit } from '../../controller/workflows/watch.ts';
import type { HostConfig } from '../../host/config.ts';
import type { Case } from '../../host/diagnosis/case.ts';
import { startHostService } from '../../host/service.ts';
import { newInstance, newSpec } from '../../host/testing/fixture.ts';
import type { Diagnosis } from '../../protocol/diagnoses.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { newSessionId } from '../../protocol/ids.ts';
import type { Stamp } from '../../protocol/machine.ts';
import { Disk } from './disk.ts';
import type { Fault } from './fault.ts';
import { packDisk, stageOf } from './vm.ts';

/** Long enough that whoever waits for it has not noticed what was certain. */
const BOOT_DEADLINE_MS = 45_000;
/** The same for a guest that is emulated in software on a busy computer. */
const VM_BOOT_DEADLINE_MS = 150_000;

/** What shows only after a while, as an address that does not come, is found by a later look. */
const LOOKS = 15;

export interface Outcome {
  readonly diagnosis: Diagnosis | null;
  readonly error: PolydevError | null;
  /** What the diagnosis was made from. */
  readonly found: Case | undefined;
  /** Files of the evidence after the machine is gone, by name. */
  readonly evidence: ReadonlyMap<string, Buffer>;
  /** Whether its boot came to its end. */
  readonly ready: boolean;
  /** What must be in none of it. */
  readonly secrets: readonly string[];
  /** From the request of the machine to its diagnosis. */
  readonly ms: number;
}

/**
 * Whether mounts made here are nobody else's. Whoever starts the corpus in a mount namespace of its own says in
 * POLYDEV_OUTER_MOUNTS which one it came from (`readlink /proc/self/ns/mnt`).
 */
export const mountsAreOurs = (): boolean => {
  const outer = process.env.POLYDEV_OUTER_MOUNTS;
  return outer !== undefined && readlinkSync('/proc/self/ns/mnt') !== outer;
};

/** As the watch over ready machines does; then as a person who asks. */
async function askAbout(
  about: Pick<BootToFollow, 'host' | 'agent' | 'signal'> & { stamps: readonly Stamp[]; looks: number },
): Promise<Diagnosis | null> {
  const { host, agent, stamps, signal, looks } = about;
  for (let look = 1; ; look++) {
    const { diagnosis, agentVersion } = await lookAt({ host, agent, patience: 1, signal });
    if (diagnosis !== null) return diagnosis;
    const question = { error: null, stamps: [...stamps], agentVersion };
    const asked = await host.diagnose(agent.machineId, question, signal);
    if (asked !== null || look >= looks) return asked;
    await sleep(2000, undefined, { signal });
  }
}

/** A host service that several faults share, one after the other. */
export class FaultBench implements AsyncDisposable {
  readonly config: HostConfig;
  readonly #cases: Map<string, Case>;
  readonly #undo: AsyncDisposableStack;

  private constructor(config: HostConfig, cases: Map<string, Case>, undo: AsyncDisposableStack) {
    this.config = config;
    this.#cases = cases;
    this.#undo = undo;
  }

  /** @param change what is different about this host service; absent: nothing */
  static async start(change?: Fault['host']): Promise<FaultBench> {
    await using undo = new AsyncDisposableStack();
    const { config: usual, log, ...folders } = newInstance();
    undo.defer(() => folders[Symbol.dispose]());
    const config = { ...usual, ...(await change?.(usual, (work) => undo.defer(work))) };
    const cases = new Map<string, Case>();
    const service = await startHostService(config, log, { onCase: (id, found) => cases.set(id, found) });
    undo.defer(() => service.stop());
    return new FaultBench(config, cases, undo.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }

  async run(fault: Fault): Promise<Outcome> {
    await using undo = new AsyncDisposableStack();
    const defer = (work: () => void | Promise<void>): void => undo.defer(work);
    const token = randomBytes(24).toString('base64url');
    const spec = newSpec({
      limits: { cpus: 2, memoryMiB: 1024, pids: 512 },
      agentTokenHash: createHash('sha256').update(token).digest('hex'),
      ...fault.spec,
    });
    const { id } = spec;
    const host = createHostClient(this.config.socketPath);
    const agent = createAgentClient(host, id, token);
    const vm = fault.driver === 'qemu';
    const deadlineMs = vm ? VM_BOOT_DEADLINE_MS : BOOT_DEADLINE_MS;
    const signal = AbortSignal.timeout(deadlineMs + 45_000);
    const folder = vm ? stageOf(this.config, id) : path.join(this.config.dataDir, 'machines', id);
    const disk = vm ? new Disk(folder, 0) : new Disk(folder);
    const place = { id, config: this.config, disk, defer };
    defer(() => host.destroy(id));
    await fault.before?.(place);
    if (vm) await packDisk(this.config, id);

    const began = performance.now();
    const stamps: Stamp[] = [];
    let ready = false;
    let error: PolydevError | null = null;
    try {
      const startedAt = new Date();
      const made = await host.put(spec, signal);
      stamps.push(...made.stamps);
      await fault.started?.(place);
      if (fault.started === undefined) {
        await followBoot({
          host,
          agent,
          kind: spec.kind,
          startedAt,
          deadline: async () => ({ ms: deadlineMs, from: 'the patience of this test' }),
          agentVersion: (await host.image(made.image, signal)).agentVersion,
          before: stamps,
          onStamp: async (stamp) => void stamps.push(stamp),
          signal,
        });
        ready = true;
      }
      await fault.after?.(place);
      // As the controller does while a session uses a machine.
      await reportExit(host, id, 0, signal);
      if (fault.login === true) {
        await agent.startLogin({ session: newSessionId(), provider: 'codex' }, signal);
        for await (const status of agent.loginEvents(signal)) {
          if (status.error !== null) throw PolydevError.fromReport({ error: status.error });
          if (status.state !== 'starting') break;
        }
      }
    } catch (thrown) {
      error = PolydevError.from(thrown);
    }
    const kept = await keepEvidence({
      host,
      agent,
      error,
      stamps,
      timeline: stamps,
      screenshot: !ready,
      signal,
    });
    // A machine that is ready is asked about by an operator, who sees that something is wrong.
    const ask = async (): Promise<Diagnosis | null> =>
      ready
        ? askAbout({ host, agent, stamps, signal, looks: fault.expect === 'none' ? 1 : LOOKS })
        : host.diagnose(id, { error: null, stamps, agentVersion: null }, signal);
    const diagnosis = kept ?? (error === null ? await ask() : null);
    const ms = performance.now() - began;
    await host.destroy(id, signal);
    const files = await host.evidence(id, signal);
    const evidence = new Map(
      await Promise.all(
        files.map(async ({ name }) => [name, await host.evidenceFile(id, name, signal)] as const),
      ),
    );
    return {
      diagnosis,
      error,
      found: this.#cases.get(id),
      ready,
      evidence,
      secrets: [token, spec.agentTokenHash],
      ms,
    };
  }
}
