/**
 * contracts/: suites that every implementation of a contract passes. This one is for drivers: the genuine host service in a
 * process of its own, the genuine image, the genuine agent. A machine is started twice, however many rows there are.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AgentClient, createAgentClient } from '../../controller/hosts/agent-client.ts';
import type { HostClient } from '../../controller/hosts/host-client.ts';
import { wake } from '../../controller/hosts/wake.ts';
import type { HostConfig } from '../../host/config.ts';
import { auditSettled } from '../../host/leaks.ts';
import { cgroupOfInstance, cgroupProcesses } from '../../host/system/cgroups.ts';
import type { MachineSpec } from '../../protocol/machine.ts';
import { type Guest, HostProcess, run, type Said } from './host-process.ts';

export interface DriverContract {
  /** Named in the title of the suite. */
  name: HostConfig['driver'];
  /** What this computer lacks for it; undefined: nothing. */
  missing: string | undefined;
  /** Folders and settings of an instance of its own. */
  bench: () => Disposable & { config: HostConfig };
  checkout: string;
  /** Milliseconds that a machine may take until its agent is ready. */
  bootMs: number;
  /** How many times longer than usual the host may take to answer; default 1. */
  patience?: number;
  /** Whether its machines hibernate. */
  hibernates: boolean;
}

export function driverContract(contract: DriverContract): void {
  const { name, missing, bootMs, patience = 1 } = contract;
  const title = `${name} driver: contract (needs ${missing ?? 'nothing more'})`;
  const boots = name !== 'namespace';

  describe.skipIf(missing !== undefined)(title, { timeout: bootMs + 60_000 }, () => {
    let bench: ReturnType<DriverContract['bench']>;
    let service: HostProcess;
    let host: HostClient;
    let guest: Guest;
    let spec: MachineSpec;
    let agent: AgentClient;

    const exec = (...argv: string[]) => run(guest, argv);
    const ofMachine = async () =>
      (await auditSettled(bench.config)).filter(({ name: left }) =>
        [spec.id, spec.id.slice(2, 12)].some((part) => left.includes(part)),
      );

    beforeAll(async () => {
      bench = contract.bench();
      service = new HostProcess({ ...bench.config, driver: name }, contract.checkout, bootMs, patience);
      await service.serve();
      host = service.host;
      guest = service.guest('cli', { cpus: 2, memoryMiB: 1024, pids: 512 });
      ({ spec, agent } = guest);
    });
    afterAll(async () => {
      await service.end('SIGTERM');
      const left = await auditSettled(bench.config);
      bench[Symbol.dispose]();
      expect(left).toEqual([]);
    });

    it('runs the smallest guest here', async () => {
      expect(await host.health()).toMatchObject({ driver: name, problems: [], ok: true });
    });

    it('names what is wrong with a specification, and keeps nothing of it', async () => {
      await expect(host.put({ ...spec, image: '0'.repeat(16) as never })).rejects.toMatchObject({
        code: 'image_missing',
      });
      await expect(host.put({ ...spec, limits: { ...spec.limits, cpus: 0 } })).rejects.toMatchObject({
        code: 'bad_request',
      });
      expect(await host.list()).toEqual([]);
      expect(await ofMachine()).toEqual([]);
    });

    it('starts a machine to a healthy agent that has its configuration, also when the host service is killed meanwhile', async () => {
      const [first, second] = await Promise.all([host.put(spec), host.put(spec)]);
      expect(second).toEqual(first);
      expect(first).toMatchObject({ state: 'running', driver: name, realm: 'test' });
      await service.end('SIGKILL');
      await service.serve();
      await service.ready(guest);
      // What nobody but the host sees of a boot.
      const seen = (await host.get(spec.id))?.stamps.map(({ checkpoint }) => checkpoint);
      if (boots) expect(seen).toEqual(['hypervisor', 'kernel', 'init']);
      expect(await agent.health()).toMatchObject({ machineId: spec.id, kind: 'cli' });
      await expect(host.put({ ...spec, realm: 'internet' })).rejects.toMatchObject({ code: 'conflict' });
      const { text } = await exec('sh', '-c', 'hostname; cat /run/polydev/config.json; id -u');
      expect(text).toContain(spec.id.replace('_', '-').slice(0, 12));
      expect(text).toContain('Permission denied'); // the person must not read it
      expect(text).toContain('1000');
    });

    it('refuses a wrong token and a port nobody serves', async () => {
      const stranger = createAgentClient(host, spec.id, 'no', patience);
      await expect(stranger.health()).rejects.toMatchObject({ code: 'agent_unauthorized' });
      await expect(host.dial(spec.id, AbortSignal.timeout(10_000), 22)).rejects.toMatchObject({
        code: 'machine_unreachable',
      });
    });

    it('carries much on several streams at once, and small calls beside it', async () => {
      const script = 'process.stdout.write("x".repeat(400000)); process.stdout.write("end")';
      const results = await Promise.all([
        ...Array.from({ length: 4 }, () => exec('node', '-e', script)),
        ...Array.from({ length: 20 }, () => agent.health()),
      ]);
      const texts = results.slice(0, 4) as Said[];
      for (const { text } of texts) expect([text.length, text.slice(-3)]).toEqual([400_003, 'end']);
    });

    it('keeps the console from the start', async () => {
      const text = await host.console(spec.id);
      expect(text).toContain('listening after');
      expect(text.indexOf('polydev-init: modules loaded')).toBeLessThan(text.indexOf('listening after'));
    });

    it('shows the machine the world of its realm and nothing else', async () => {
      const script = `
        const { connect } = require('node:net');
        const attempt = (host, port) => new Promise((resolve) => {
          const socket = connect({ host, port, timeout: ${4000 * patience} });
          const done = (word) => { socket.destroy(); resolve(host + ' ' + word); };
          socket.once('connect', () => done('open')).once('error', () => done('closed')).once('timeout', () => done('closed'));
        });
        Promise.all([['auth.openai.com', 443], ['192.0.2.1', 443], [process.argv[1], 22], ['example.com', 443]]
          .map(([host, port]) => attempt(host, port))).then((all) => console.log(all.join('\\n')));`;
      const gateway = (await host.get(spec.id))?.address?.replace(/\.\d+$/, '.1') ?? '';
      const { text } = await exec('node', '-e', script, gateway);
      expect(text.trim().split('\n')).toEqual([
        'auth.openai.com open',
        '192.0.2.1 closed',
        `${gateway} closed`,
        'example.com closed',
      ]);
    });

    it('goes on with its machine after the host service was killed', async () => {
      const before = await host.get(spec.id);
      await service.end('SIGKILL');
      await service.serve();
      expect(await host.get(spec.id)).toEqual(before);
      await service.ready(guest);
      expect((await exec('sh', '-c', 'echo mark > ~/mark && echo written')).text).toBe('written\n');
      expect(await host.console(spec.id)).toContain('listening after');
    });

    it.skipIf(!contract.hibernates)(
      'lets a guest sleep and go on where it was, also after the host service was killed meanwhile (needs hibernation)',
      async () => {
        const running = await exec('sh', '-c', 'cat /proc/sys/kernel/random/boot_id; cat /proc/uptime');
        expect(await host.hibernate(spec.id)).toMatchObject({ state: 'hibernated' });
        expect(await host.hibernate(spec.id)).toMatchObject({ state: 'hibernated' });
        await service.end('SIGKILL');
        await service.serve();
        expect(await host.get(spec.id)).toMatchObject({ state: 'hibernated' });
        expect(await host.resume(spec.id)).toMatchObject({ state: 'running' });
        // Sets the guest's clock and gives it new entropy; throws unless the clock is right then.
        await wake(agent, AbortSignal.timeout(bootMs));
        const again = await exec('sh', '-c', 'cat /proc/sys/kernel/random/boot_id; cat ~/mark');
        const [boot] = running.text.split('\n');
        expect(again.text).toBe(`${boot}\nmark\n`);
        expect((await agent.health()).uptimeMs).toBeGreaterThan(0);
      },
    );

    it('stops a machine in order and starts it again on its disk', async () => {
      expect(await host.stop(spec.id)).toMatchObject({ state: 'stopped' });
      expect((await ofMachine()).filter(({ kind }) => kind !== 'lease')).toEqual([]);
      expect(await host.put(spec)).toMatchObject({ state: 'running' });
      await service.ready(guest);
      expect((await exec('sh', '-c', 'cat ~/mark')).text).toBe('mark\n');
    });

    it.skipIf(!boots)('writes its journal to its disk (needs systemd)', async () => {
      expect((await exec('logger', '--priority', 'user.info', '--tag', 'person', 'mark')).code).toBe(0);
      // More than twice what its journald waits before it syncs; what came of it is seen below.
      expect((await exec('sleep', '12')).code).toBe(0);
    });

    it('notices when a machine is killed', async () => {
      const waiting = host.exit(spec.id, Math.min(20 * patience, 60));
      const inside = cgroupProcesses(`${cgroupOfInstance(bench.config.instance)}/${spec.id}`);
      const first = inside.reduce((a, b) => (Number(started(b.pid)) <= Number(started(a.pid)) ? b : a));
      process.kill(first.pid, 'SIGKILL');
      expect(await waiting).toMatchObject({ signal: 'SIGKILL' });
      expect(await host.get(spec.id)).toMatchObject({ state: 'exited' });
    });

    it.skipIf(!boots)('keeps what a machine that was killed wrote of itself (needs systemd)', async () => {
      const text = (await host.evidenceFile(spec.id, 'journal.log')).toString('utf8');
      expect(text).toMatch(/^-- From the disk of a guest that has ended/);
      expect(text).toMatch(/ person\[\d+\]: mark$/m);
    });

    it('destroys it without a trace but the evidence', async () => {
      await host.destroy(spec.id);
      await host.destroy(spec.id);
      expect(await host.list()).toEqual([]);
      expect(await ofMachine()).toEqual([]);
      const names = (await host.evidence(spec.id)).map((file) => file.name).sort();
      expect(names).toEqual(expect.arrayContaining(['console.log', 'machine.json']));
    });
  });
}

/** When a process started, in clock ticks after boot. */
function started(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '0';
}
