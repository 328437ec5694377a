/**
 * Faults that come to a machine that is ready: a real host service, the controller's real services over a real Postgres.
 * The machine must be named degraded while the fault lasts, be left running, and be healthy again afterwards.
 */
import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createHostClient } from '../../controller/hosts/host-client.ts';
import type { Services } from '../../controller/services.ts';
import { openDatabase } from '../../controller/store/database.ts';
import { requestMachine } from '../../controller/store/machines.ts';
import type { Database } from '../../controller/store/tables.ts';
import { readMachineEvents } from '../../controller/store/timeline.ts';
import { masterKeyFromValue } from '../../controller/vault/master-key.ts';
import { createVault } from '../../controller/vault/vault.ts';
import { createServices } from '../../controller/workflows/services.ts';
import type { HostConfig } from '../../host/config.ts';
import { startHostService } from '../../host/service.ts';
import { lacking, newInstance } from '../../host/testing/fixture.ts';
import type { Machine } from '../../protocol/api.ts';
import type { DiagnosisName } from '../../protocol/diagnoses.ts';
import { type MachineId, newMachineId, UserId } from '../../protocol/ids.ts';
import { startTestPostgres } from '../postgres.ts';
import { agentHangs } from './agent-hangs/fault.ts';
import { Disk } from './disk.ts';
import { dnsDead } from './dns-dead/fault.ts';
import { duplicateAddress } from './duplicate-address/fault.ts';
import type { Fault } from './fault.ts';
import { noNetworkDevice } from './no-network-device/fault.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const missing = lacking({ image: true });
/** Looks are 1 to 2 s apart here; an agent that is silent is asked twice, longer on a busy host. */
const PATIENCE_MS = 90_000;

describe.skipIf(missing !== undefined)(`a ready machine (needs ${missing ?? 'nothing more'})`, () => {
  let config: HostConfig;
  let db: Database;
  let services: Services;
  let id: MachineId;
  const undo = new AsyncDisposableStack();

  beforeAll(async () => {
    const postgres = undo.use(await startTestPostgres());
    const { config: usual, log, ...folders } = newInstance();
    undo.defer(() => folders[Symbol.dispose]());
    config = usual;
    const service = await startHostService(config, log);
    undo.defer(() => service.stop());
    const databaseUrl = await postgres.createDatabase();
    const open = undo.use(await openDatabase({ url: databaseUrl }));
    db = open.db;
    services = undo.use(
      await createServices({
        db,
        databaseUrl,
        vault: await createVault(db, masterKeyFromValue(randomBytes(32).toString('hex'))),
        hostClient: createHostClient(config.socketPath),
        log: pino({ level: 'silent' }),
        settings: { lookEveryMs: [1_000, 2_000] },
      }),
    );
    const row = await requestMachine(db, {
      id: newMachineId(),
      kind: 'cli',
      realm: 'internet',
      userId: UserId.parse('ada'),
      sessionId: null,
      hostId: 'local',
      limits: { cpus: 2, memoryMiB: 512, pids: 256, diskMiB: 64 },
      display: { width: 800, height: 600 },
    });
    id = row.id;
    const terminal = await services.machines.terminal(id, { cols: 80, rows: 24 });
    await terminal.close();
  });
  afterAll(() => undo.disposeAsync());

  const machine = async (): Promise<Machine> => {
    const found = await services.machines.get(id);
    if (found === undefined) throw new Error('the machine is gone');
    return found;
  };
  const healthEvents = async () =>
    (await readMachineEvents(db, id))
      .filter(({ kind }) => kind === 'health')
      .map(({ name, detail }) => `${name} ${detail ?? ''}`.trim());
  const becomes = (name: DiagnosisName | undefined) =>
    expect
      .poll(async () => (await machine()).health?.diagnosis?.name, { timeout: PATIENCE_MS, interval: 200 })
      .toBe(name);
  const say = (what: string, began: number): void =>
    void process.stderr.write(`${what}: ${Math.round(performance.now() - began)} ms\n`);

  /** Injects, waits for the name, takes the fault back, waits for health. */
  async function comesAndGoes(fault: Pick<Fault, 'after' | 'expect'>): Promise<void> {
    const before = await healthEvents();
    await using back = new AsyncDisposableStack();
    const disk = new Disk('/nonexistent');
    await fault.after?.({ id, config, disk, defer: (work) => back.defer(work) });
    const name = fault.expect as DiagnosisName;
    let began = performance.now();
    await becomes(name);
    say(`named ${name}`, began);
    const seen = await machine();
    expect(seen).toMatchObject({ state: 'ready', error: null });
    expect(seen.health?.state).toBe('degraded');
    expect(seen.health?.diagnosis?.lines.length).toBeGreaterThan(0);
    await back.disposeAsync();
    began = performance.now();
    await becomes(undefined);
    say(`healthy after ${name}`, began);
    expect((await healthEvents()).slice(before.length)).toEqual([`degraded ${name}`, 'healthy']);
    const metrics = await services.meters.registry.metrics();
    expect(metrics).toContain(`polydev_machine_degradations_total{diagnosis="${name}",kind="cli"} 1`);
  }

  /** Runs a command in the machine to its end, or until the machine ends it. */
  async function inMachine(argv: string[]): Promise<void> {
    const signal = AbortSignal.timeout(60_000);
    for await (const _ of services.machines.exec(id, { argv, timeoutMs: 50_000 }, signal));
  }

  it('is healthy, and that is no event', async () => {
    await expect
      .poll(async () => (await machine()).health?.state, { timeout: PATIENCE_MS, interval: 200 })
      .toBe('healthy');
    expect(await healthEvents()).toEqual([]);
  });

  it('loses its resolver', () => comesAndGoes(dnsDead));

  it('shares its address', () => comesAndGoes(duplicateAddress));

  it('loses its agent', () => comesAndGoes(agentHangs));

  it('fills its disk', () =>
    comesAndGoes({
      expect: 'guest_disk_full',
      after: async ({ defer }) => {
        defer(() => inMachine(['rm', 'fill']));
        await inMachine(['sh', '-c', 'dd if=/dev/zero of=fill bs=64k; true']);
      },
    }));

  it('runs out of memory, and a program of its person ends', async () => {
    const hog = 'const held = []; for (;;) held.push(Buffer.alloc(16 << 20, 1));';
    await inMachine(['node', '-e', hog]);
    await becomes('memory_too_small');
    expect((await machine()).state).toBe('ready');
  });

  it('loses its network device, which lies deeper than nothing', async () => {
    // What was out of memory is still news; the device is named when that is over, so it gets a start of its own.
    await services.machines.stop(id);
    const stopped = await machine();
    expect(stopped.health).toBeNull();
    // A stop is no trouble.
    expect((await healthEvents()).at(-1)).toBe('degraded memory_too_small');
    await services.machines.start(id);
    await expect
      .poll(async () => (await machine()).health?.state, { timeout: PATIENCE_MS, interval: 200 })
      .toBe('healthy');
    await noNetworkDevice.after?.({ id, config, disk: new Disk('/nonexistent'), defer: () => undefined });
    await becomes('no_network_device');
    expect((await machine()).state).toBe('ready');
  });
});
