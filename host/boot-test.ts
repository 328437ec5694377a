/** Proves an image by booting it: a browser machine of a host service of its own, from an image that nobody else uses yet. */
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { AgentHealth } from '../protocol/agent.ts';
import { PolydevError } from '../protocol/errors.ts';
import { ImageId, newMachineId } from '../protocol/ids.ts';
import type { MachineSpec, Stamp } from '../protocol/machine.ts';
import { HostConfig } from './config.ts';
import { askAgent, type Dial } from './drivers/vm/agent.ts';
import type { BootRecord } from './images/manifest.ts';
import type { MachineManager } from './machines/manager.ts';
import { startHostService } from './service.ts';
import { parseJson } from './system/files.ts';

export interface BootTestInput {
  /** The image to boot; it need not be current. */
  image: string;
  imageCacheDir: string;
  checkout: string;
  signal: AbortSignal;
}

/** Until the whole checklist is stamped, on a driver without emulation. */
const BOOT_MS = 60_000;
const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

/**
 * Boots a browser machine to the end of its checklist, on the driver that `auto` chooses, without any network outside; nothing is
 * left of it. Throws `image_verification_failed` with the last lines of the console when the image does not get there,
 * `driver_unusable` when nothing runs a guest here.
 */
export async function bootTest(input: BootTestInput): Promise<BootRecord> {
  await using cleanup = new AsyncDisposableStack();
  const instance = Array.from(randomBytes(6), (byte) => LETTERS[byte % LETTERS.length]).join('');
  const dataDir = await mkdtemp(join(tmpdir(), 'polydev-boot-test-'));
  await chmod(dataDir, 0o711);
  cleanup.defer(() => rm(dataDir, { recursive: true, force: true }));
  const runDir = `/run/polydev-${instance}`;
  const config = HostConfig.parse({
    instance,
    dataDir,
    runDir,
    socketPath: join(runDir, 'host.sock'),
    socketUid: 0,
    imageCacheDir: input.imageCacheDir,
    uplink: 'none',
    nodePath: process.execPath,
    checkout: input.checkout,
    logLevel: 'silent',
  });
  const service = await startHostService(config, pino({ level: 'silent' }));
  cleanup.defer(() => service.stop());
  const { problems } = await service.health();
  // Without a current image the service says so, which is what we are about to change.
  const others = problems.filter((problem) => problem !== 'there is no current image');
  if (others.length > 0) throw new PolydevError('driver_unusable', others.join('; '));

  const token = randomBytes(16).toString('hex');
  const spec: MachineSpec = {
    id: newMachineId(),
    kind: 'browser',
    realm: 'test',
    image: ImageId.parse(input.image),
    limits: { cpus: 2, memoryMiB: 2048, pids: 1024 },
    display: { width: 1280, height: 800 },
    agentTokenHash: createHash('sha256').update(token).digest('hex'),
  };
  const began = performance.now();
  const { slowdown = 1 } = await service.machines.put(spec);
  const deadline = AbortSignal.any([input.signal, AbortSignal.timeout(BOOT_MS * slowdown)]);
  const stamps = await untilReady(service.machines, spec, token, deadline);
  return {
    at: new Date().toISOString(),
    driver: service.driver.name,
    ms: Math.round(performance.now() - began),
    checkpoints: stamps.map(({ checkpoint }) => checkpoint),
  };
}

async function untilReady(
  machines: MachineManager,
  spec: MachineSpec,
  token: string,
  deadline: AbortSignal,
): Promise<readonly Stamp[]> {
  let last = 'the agent never answered';
  for (;;) {
    const health = await askHealth(machines, spec, token, deadline).catch((error: unknown) => {
      last = PolydevError.from(error).message;
      return undefined;
    });
    if (health?.ready === true) return health.stamps;
    const { state } = machines.get(spec.id);
    const failed = health?.failure?.message ?? (state !== 'running' ? 'its first process ended' : undefined);
    if (failed !== undefined || deadline.aborted) {
      const reached = health?.stamps.at(-1)?.checkpoint ?? 'hypervisor';
      throw new PolydevError(
        'image_verification_failed',
        `image ${spec.image} does not boot: ${failed ?? last} (last checkpoint: ${reached})`,
        { lines: (await machines.console(spec.id)).split('\n').slice(-20) },
      );
    }
    await sleep(50);
  }
}

async function askHealth(
  machines: MachineManager,
  { id }: MachineSpec,
  token: string,
  deadline: AbortSignal,
): Promise<AgentHealth> {
  const dial: Dial = (port, signal) => machines.dial(id, port, signal);
  const limit = AbortSignal.any([deadline, AbortSignal.timeout(10_000)]);
  const { text } = await askAgent(dial, { token, path: '/health' }, limit);
  return AgentHealth.parse(parseJson(text));
}
