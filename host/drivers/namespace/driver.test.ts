import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PolydevError } from '../../../protocol/errors.ts';
import { AGENT_PORT } from '../../../protocol/machine.ts';
import { auditSettled } from '../../leaks.ts';
import { type HostService, startHostService } from '../../service.ts';
import { Leases } from '../../system/leases.ts';
import {
  type Bench,
  lacking,
  newInstance,
  newSpec,
  nodeGuest,
  shellGuest,
  UPPER_CASE_AGENT,
} from '../../testing/fixture.ts';

const missing = lacking({ image: true });
/** The number of this system call. */
const SETSOCKOPT = process.arch === 'arm64' ? 208 : 54;

describe.skipIf(missing !== undefined)(`namespace driver (needs ${missing ?? 'nothing more'})`, () => {
  let bench: Bench;
  let service: HostService | undefined;
  beforeEach(() => {
    bench = newInstance();
  });
  afterEach(async () => {
    await service?.stop();
    service = undefined;
    const left = await auditSettled(bench.config);
    bench[Symbol.dispose]();
    expect(left).toEqual([]);
  });
  const start = async (argv: readonly string[]): Promise<HostService> => {
    service = await startHostService(bench.config, bench.log, { argv });
    return service;
  };
  /** Runs a guest to its end; what it printed and how it ended. */
  const runGuest = async (argv: readonly string[], changes: Parameters<typeof newSpec>[0] = {}) => {
    const { machines } = await start(argv);
    const spec = newSpec(changes);
    await machines.put(spec);
    const exit = await machines.exit(spec.id, 20_000);
    return { exit, console: await machines.console(spec.id), machines, spec };
  };

  it('reports that it works here', async () => {
    const { health } = await start(UPPER_CASE_AGENT);
    expect(await health()).toMatchObject({ ok: true, driver: 'namespace', problems: [] });
  });

  it('carries bytes both ways over the channel, also before the guest listens', async () => {
    const { machines } = await start(UPPER_CASE_AGENT);
    const spec = newSpec();
    await machines.put(spec);
    const channel = await machines.dial(spec.id, AGENT_PORT, AbortSignal.timeout(10_000));
    channel.end('hello');
    expect((await buffer(channel)).toString()).toBe('HELLO');
    await expect(machines.dial(spec.id, 22, AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'machine_unreachable',
    });
  });

  it('starts the same id once, refuses another specification, and destroys without a trace', async () => {
    const { machines } = await start(UPPER_CASE_AGENT);
    const spec = newSpec();
    const [first, second] = await Promise.all([machines.put(spec), machines.put(spec)]);
    expect(second).toEqual(first);
    await expect(machines.put({ ...spec, realm: 'test' })).rejects.toMatchObject({ code: 'conflict' });
    await machines.destroy(spec.id);
    await machines.destroy(spec.id);
    expect(machines.list()).toEqual([]);
    const left = (await auditSettled(bench.config)).filter(
      ({ name }) => name.includes(spec.id) || name.includes(spec.id.slice(2, 12)),
    );
    expect(left).toEqual([]);
    const kept = (await machines.evidence(spec.id)).map(({ name }) => name);
    expect(kept).toEqual(
      expect.arrayContaining(['console.log', 'machine-spec.json', 'machine.json', 'runtime-spec.json']),
    );
    for (const name of kept) {
      expect((await machines.readEvidence(spec.id, name)).includes(spec.agentTokenHash)).toBe(false);
    }
  });

  it('keeps the console from its first byte and tells the exit code', async () => {
    const { exit, console } = await runGuest(shellGuest('echo first; echo second >&2; exit 7'));
    expect(exit).toMatchObject({ code: 7, signal: null, oomKilled: false });
    expect(console).toBe('first\nsecond\n');
  });

  it('gives no secret away that a guest prints', async () => {
    const { console, machines, spec } = await runGuest(
      shellGuest(
        'echo Authorization: Bearer canary0bearer0a6; echo refresh_token=canary0named0b7c; echo seen',
      ),
    );
    await machines.destroy(spec.id);
    const kept = (await machines.readEvidence(spec.id, 'console.log')).toString();
    for (const text of [console, kept]) {
      expect(text).toContain('seen\n');
      expect(text).not.toContain('canary0');
    }
  });

  it('bounds the console, keeping beginning and end', async () => {
    const { exit, console } = await runGuest(
      shellGuest('echo begin; head -c 3000000 /dev/zero | tr "\\\\0" x; echo; echo end'),
    );
    expect(exit?.code).toBe(0);
    expect(console.startsWith('begin\n')).toBe(true);
    expect(console.endsWith('\nend\n')).toBe(true);
    expect(console.length).toBeLessThan(1_400_000);
  });

  it('keeps the disk of a CLI machine over a stop, and starts it again on it', async () => {
    const { machines } = await start(
      shellGuest('cat /home/person/mark; echo kept > /home/person/mark; exec sleep 60'),
    );
    const spec = newSpec({ kind: 'cli' });
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toContain('No such file');
    await sleep(100); // the guest writes its mark after that line
    expect(await machines.stop(spec.id)).toMatchObject({ state: 'stopped' });
    expect(await machines.put(spec)).toMatchObject({ state: 'running' });
    await expect.poll(() => machines.console(spec.id)).toBe('kept\n');
    await machines.destroy(spec.id);
  });

  it('keeps the ids of a stopped machine from others after a reboot', async () => {
    const { machines } = await start(UPPER_CASE_AGENT);
    const spec = newSpec({ kind: 'cli' });
    await machines.put(spec);
    const claims = async () => new Leases(join(bench.config.sharedDir, 'ids')).list();
    const owner = join(bench.config.dataDir, 'machines', spec.id);
    const before = (await claims()).find((claim) => claim.owner === owner);
    await service?.stop();
    rmSync(bench.config.sharedDir, { recursive: true });
    const again = await start(UPPER_CASE_AGENT);
    expect(before).toBeDefined();
    expect(await claims()).toContainEqual(before);
    await again.machines.put(spec);
    await again.machines.destroy(spec.id);
  });

  it('starts although a loss of power left the files of a machine empty, and keeps its disk', async () => {
    const { machines } = await start(shellGuest('echo kept > /home/person/mark; echo done; exec sleep 60'));
    const spec = newSpec({ kind: 'cli' });
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toBe('done\n');
    await service?.stop();
    const folder = join(bench.config.dataDir, 'machines', spec.id);
    for (const name of ['record.json', 'driver.json']) writeFileSync(join(folder, name), '');
    const again = await start(shellGuest('cat /home/person/mark; exec sleep 60'));
    expect(again.machines.list()).toEqual([]);
    await again.machines.put(spec);
    await expect.poll(() => again.machines.console(spec.id)).toBe('kept\n');
    await again.machines.destroy(spec.id);
  });

  it('ends a guest that takes more memory than it has, and says so', async () => {
    const script = 'const keep = []; for (;;) keep.push(Buffer.alloc(16 << 20, 1));';
    // Without an init below the limit: the killed process is the machine's first.
    const { exit } = await runGuest(nodeGuest(script).slice(2), {
      limits: { cpus: 1, memoryMiB: 128, pids: 64 },
    });
    expect(exit).toMatchObject({ signal: 'SIGKILL', oomKilled: true });
  });

  it('limits processes', async () => {
    const script = 'i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all-started';
    const { console } = await runGuest(shellGuest(script), { limits: { cpus: 1, memoryMiB: 256, pids: 40 } });
    expect(console).toMatch(/fork|Resource temporarily unavailable/i);
    expect(console).not.toContain('all-started');
  });

  it('closes what a guest must not do, and leaves open what Chromium needs', async () => {
    const script = `
      mount -t tmpfs x /mnt 2>/dev/null && echo BAD mount
      unshare --mount true 2>/dev/null && echo BAD mount namespace
      hostname other 2>/dev/null && echo BAD hostname
      ip link add x0 type veth 2>/dev/null && echo BAD link
      perl -e 'socket(S, 16, 3, 12) and print "BAD packet filter socket\\n"'
      perl -e 'socket(S, 2, 2, 0); for $o (64, (1 << 32) + 64) {
        syscall(${SETSOCKOPT}, fileno(S), 0, $o, "x" x 96, 96); print "BAD packet filter option $o: $!\\n" if $! != 38 }'
      perl -e 'socket(S, 2, 2, 0); setsockopt(S, 1, 2, 1) and print "ordinary option\\n"'
      perl -e 'socket(S, 16, 3, 0) and print "route socket\\n"'
      echo 1 > /proc/sys/net/ipv4/ip_forward 2>/dev/null && echo BAD sysctl
      cat /proc/kcore 2>/dev/null | head -c1 | grep -q . && echo BAD kcore
      touch /run/polydev/x 2>/dev/null && echo BAD config drive
      setpriv --reuid 1000 --regid 1000 --clear-groups cat /run/polydev/config.json 2>/dev/null && echo BAD config readable
      [ -e /dev/sda ] || [ -e /dev/vda ] || [ -e /dev/kmsg ] && echo BAD device
      grep -q 'NoNewPrivs:.1' /proc/self/status && grep -q 'Seccomp:.2' /proc/self/status && echo filtered
      setpriv --reuid 1000 --regid 1000 --clear-groups unshare --user --pid --net --fork true && echo sandbox-possible
      cat /proc/self/uid_map
    `;
    const { console } = await runGuest(shellGuest(script));
    expect(console).not.toContain('BAD');
    expect(console).toContain('ordinary option');
    expect(console).toContain('route socket');
    expect(console).toContain('filtered\nsandbox-possible\n');
    expect(console).not.toMatch(/^\s*0\s+0\s/m);
  });

  it('ends a start that is destroyed meanwhile, at whatever point it is', async () => {
    const { machines } = await start(UPPER_CASE_AGENT);
    for (const delay of [0, 10, 25, 45, 70]) {
      const spec = newSpec();
      const starting = machines.put(spec).then(
        () => 'started',
        (error: PolydevError) => error.code,
      );
      await sleep(delay);
      await machines.destroy(spec.id);
      expect(['started', 'conflict']).toContain(await starting);
      const left = (await auditSettled(bench.config)).filter(({ name }) =>
        name.includes(spec.id.slice(2, 12)),
      );
      expect(left).toEqual([]);
    }
    expect(machines.list()).toEqual([]);
  });

  it("keeps a machine's files from other users of the host", async () => {
    const { machines } = await start(UPPER_CASE_AGENT);
    const spec = newSpec();
    await machines.put(spec);
    const root = join(bench.config.runDir, 'm', spec.id, 'root');
    expect(readdirSync(root)).toContain('home');
    const asNobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups', 'ls', root];
    expect(spawnSync('setpriv', asNobody, { encoding: 'utf8' }).stderr).toContain('Permission denied');
    await machines.destroy(spec.id);
  });

  it('gives machines different owners', async () => {
    const { machines } = await start(shellGuest('cat /proc/self/uid_map; exec sleep 60'));
    const specs = [newSpec(), newSpec()];
    await Promise.all(specs.map((spec) => machines.put(spec)));
    const maps = await Promise.all(
      specs.map((spec) =>
        expect
          .poll(() => machines.console(spec.id))
          .toMatch(/65536/)
          .then(() => machines.console(spec.id)),
      ),
    );
    expect(maps[0]).not.toBe(maps[1]);
  });

  it('names what is wrong with a guest that cannot start, and keeps the evidence', async () => {
    const { machines } = await start(['/no/such/program']);
    const spec = newSpec();
    await expect(machines.put(spec)).rejects.toMatchObject({
      code: 'machine_start_failed',
      message: expect.stringContaining('/no/such/program'),
    });
    expect(machines.list()).toEqual([]);
    expect((await machines.readEvidence(spec.id, 'start-error.json')).toString()).toContain(
      '/no/such/program',
    );
  });
});
