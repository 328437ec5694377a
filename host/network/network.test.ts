/** Real packets, all between namespaces made here: one stands for the host, one for everything public. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { newMachineId } from '../../protocol/ids.ts';
import { auditSettled } from '../leaks.ts';
import { run, spawnIn } from '../system/command.ts';
import { removeTree } from '../system/files.ts';
import { endProcess, identify } from '../system/processes.ts';
import { inNetworkNamespace } from '../system/syscalls.ts';
import { type Bench, CHECKOUT, lacking, newInstance } from '../testing/fixture.ts';
import { idpNamespace, namespacePath, parseAddress, routerNamespace } from './addresses.ts';
import { type Attachment, Network, type NetworkSettings } from './network.ts';
import { removeNamespace } from './router.ts';

const PUBLIC = '203.0.113.10';
/** What the public name means: an address the resolver does not count as private. Nothing ever connects to it. */
const NAMED = '100.0.0.10';
const HOST = '203.0.113.1';
const PRIVATE = '10.99.0.1';
const METADATA = '169.254.169.254';
/** Where everything here listens. */
const PORT = 9000;
const OPEN = 'ok';

const missing = lacking({ image: false });

describe.skipIf(missing !== undefined)(`network of machines (needs ${missing ?? 'nothing more'})`, () => {
  const undo = new AsyncDisposableStack();
  let bench: Bench;
  let settings: NetworkSettings;
  let network: Network;
  const ids = { a: newMachineId(), b: newMachineId(), sealed: newMachineId(), sealed2: newMachineId() };
  let a: Attachment;
  let b: Attachment;
  let sealed: Attachment;
  let sealed2: Attachment;
  let host: string;

  const listen = async (netns: string): Promise<void> => {
    const script = `require('net').createServer((c) => c.end()).listen(${PORT}, '0.0.0.0', () => console.log('up'))`;
    await startIn(netns, [process.execPath, '-e', script]);
  };
  const startIn = async (netns: string, argv: string[]): Promise<ChildProcess> => {
    const child = spawnIn(netns, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    undo.defer(async () => {
      const found = child.pid === undefined ? undefined : identify(child.pid);
      if (found !== undefined) await endProcess(found, 1000);
    });
    const lines = [child.stdout, child.stderr].filter((stream) => stream !== null);
    await Promise.race([...lines.map((stream) => once(stream, 'data')), once(child, 'error')]);
    return child;
  };
  type Tries = Record<string, { to: string; port?: number; from?: string; name?: string }>;
  const probe = async (netns: string, tries: Tries): Promise<Record<string, string>> => {
    const full = Object.fromEntries(
      Object.entries(tries).map(([label, one]) => [label, { port: PORT, ...one }]),
    );
    const text = await run(
      [process.execPath, join(CHECKOUT, 'host/testing/prober.ts'), JSON.stringify(full)],
      {
        netns,
        timeoutMs: 20_000,
      },
    );
    return z.record(z.string(), z.string()).parse(JSON.parse(text));
  };
  const forwarding = (): string =>
    inNetworkNamespace(host, () => readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim());

  beforeAll(async () => {
    bench = newInstance();
    undo.use(bench);
    const { instance, runDir, sharedDir, dataDir, checkout, nodePath } = bench.config;
    undo.defer(() => removeTree(sharedDir));
    // Not the instance's own prefix: these stand for the world around it.
    const names = { host: `pdt-${instance}-host`, public: `pdt-${instance}-pub` };
    for (const name of Object.values(names)) {
      await run(['ip', 'netns', 'add', name]);
      undo.defer(() => removeNamespace(name));
    }
    host = namespacePath(names.host);
    const outside = namespacePath(names.public);
    const setUp = (netns: string, lines: string[]) =>
      run(['ip', '-batch', '-'], { netns, input: [...lines, ''].join('\n') });
    await setUp(host, [
      'link set lo up',
      `link add wan type veth peer name eth0 netns ${names.public}`,
      `addr add ${HOST}/24 dev wan`,
      'link set wan up',
      `route add default via ${PUBLIC}`,
    ]);
    await setUp(outside, [
      'link set lo up',
      'link set eth0 up',
      `addr add ${PUBLIC}/24 dev eth0`,
      ...[PRIVATE, METADATA].map((address) => `addr add ${address}/32 dev lo`),
    ]);
    await mkdir(runDir, { recursive: true, mode: 0o711 });
    undo.defer(() => removeTree(runDir));
    settings = {
      instance,
      runFolder: runDir,
      idpStateFolder: join(dataDir, 'idp'),
      uplink: 'nat',
      subnet: '10.213.0.0/16',
      resolvers: [PUBLIC],
      forwardingFolder: join(sharedDir, 'forwarding'),
      hostNetns: host,
      idp: { checkout, nodePath, script: 'testkit/idp/main.ts' },
      uids: { routerDns: 0x6fffff00, idpDns: 0x6fffff01, idp: 0x6fffff02 },
      log: bench.log,
    };
    const signal = AbortSignal.timeout(60_000);
    network = await Network.open(settings, [], signal);
    undo.use(network);
    [a, b, sealed, sealed2] = await Promise.all([
      network.attach(ids.a, 'internet', signal),
      network.attach(ids.b, 'internet', signal),
      network.attach(ids.sealed, 'test', signal),
      network.attach(ids.sealed2, 'test', signal),
    ]);
    await Promise.all([listen(host), listen(outside), listen(b.namespace), listen(sealed.namespace)]);
    const dns = [
      '--no-daemon',
      '--no-resolv',
      '--no-hosts',
      '--conf-file=/dev/null',
      `--listen-address=${PUBLIC}`,
    ];
    const names2 = [`--address=/public.example/${NAMED}`, `--address=/rebind.example/${PRIVATE}`];
    await startIn(outside, ['dnsmasq', ...dns, '--bind-interfaces', '--pid-file', '--user=root', ...names2]);
  });

  afterAll(async () => {
    await undo.disposeAsync();
  });

  it('lets an internet machine reach public addresses and names, and nothing else', async () => {
    const found = await probe(a.namespace, {
      public: { to: PUBLIC },
      name: { to: network.plan.gateway, port: 53, name: 'public.example' },
      rebinding: { to: network.plan.gateway, port: 53, name: 'rebind.example' },
      otherMachine: { to: b.address },
      testMachine: { to: sealed.address },
      hostOnLink: { to: network.plan.uplinkHost },
      hostOutside: { to: HOST },
      router: { to: network.plan.gateway },
      private: { to: PRIVATE },
      metadata: { to: METADATA },
      idp: { to: network.plan.idp, port: 443 },
      idpDns: { to: network.plan.idp, port: 53, name: 'auth.openai.com' },
    });
    const { public: reached, name, rebinding, idpDns, ...closed } = found;
    expect(reached).toBe(OPEN);
    expect(name).toBe(NAMED);
    expect(rebinding).not.toBe(PRIVATE);
    expect(idpDns).not.toBe(network.plan.idp);
    expect(Object.entries(closed).filter(([, result]) => result === OPEN)).toEqual([]);
    expect(Object.keys(closed)).toHaveLength(8);
  });

  it('lets what is closed above be reached from where it should be, so that closed means closed', async () => {
    const fromHost = await probe(host, {
      private: { to: PRIVATE },
      own: { to: HOST },
      link: { to: network.plan.uplinkHost },
    });
    expect(fromHost).toEqual({ private: OPEN, own: OPEN, link: OPEN });
    expect(await probe(b.namespace, { self: { to: b.address }, public: { to: PUBLIC } })).toEqual({
      self: OPEN,
      public: OPEN,
    });
    expect(await probe(sealed.namespace, { self: { to: sealed.address } })).toEqual({ self: OPEN });
  });

  it('lets a test machine reach the test identity provider and nothing else', async () => {
    const [dns] = sealed.dns;
    expect(dns).toBe(network.plan.idp);
    expect(sealed.ca).toContain('BEGIN CERTIFICATE');
    expect(a.ca).toBeUndefined();
    const found = await probe(sealed.namespace, {
      idp: { to: network.plan.idp, port: 443 },
      name: { to: network.plan.idp, port: 53, name: 'auth.openai.com' },
      otherName: { to: network.plan.idp, port: 53, name: 'public.example' },
      subName: { to: network.plan.idp, port: 53, name: 'x.auth.openai.com' },
      public: { to: PUBLIC },
      routerDns: { to: network.plan.gateway, port: 53, name: 'public.example' },
      internetMachine: { to: b.address },
      hostOutside: { to: HOST },
      hostOnLink: { to: network.plan.uplinkHost },
      private: { to: PRIVATE },
      metadata: { to: METADATA },
    });
    const { idp, name, otherName, subName, routerDns, ...closed } = found;
    expect(idp).toBe(OPEN);
    expect(name).toBe(network.plan.idp);
    expect([otherName, subName]).toEqual(['ENOTFOUND', 'ENOTFOUND']);
    expect(routerDns).not.toBe(NAMED);
    expect(Object.entries(closed).filter(([, result]) => result === OPEN)).toEqual([]);
    const between = await probe(sealed2.namespace, { test: { to: sealed.address } });
    expect(between.test).not.toBe(OPEN);
  });

  it('does not let a machine borrow the address of another realm', async () => {
    const borrow = (netns: string, address: string, gateway: string) =>
      run(['ip', '-batch', '-'], {
        netns,
        input: `addr add ${address}/32 dev eth0\nroute replace default via ${gateway} src ${address}\n`,
      });
    // A lost answer would look the same as a stopped packet: count what gets past the bridge, before any other rule.
    const router = namespacePath(routerNamespace(settings.instance));
    const watched = [sealed2.address, b.address].map((address) => ({
      address,
      name: `c${parseAddress(address)}`,
    }));
    const table = [
      'table inet spy {',
      ...watched.map(({ name }) => `counter ${name} { }`),
      'chain spy {',
      'type filter hook prerouting priority -400; policy accept;',
      ...watched.map(({ address, name }) => `ip saddr ${address} counter name "${name}"`),
      '}',
      '}',
      '',
    ];
    await run(['nft', '-f', '-'], { netns: router, input: table.join('\n') });
    const passed = async (address: string): Promise<number> => {
      const text = await run(['nft', 'list', 'counter', 'inet', 'spy', `c${parseAddress(address)}`], {
        netns: router,
      });
      return Number(/packets (\d+)/.exec(text)?.[1]);
    };
    await borrow(a.namespace, sealed2.address, network.plan.gateway);
    const forged = await probe(a.namespace, {
      idp: { to: network.plan.idp, port: 443, from: sealed2.address },
    });
    expect([forged.idp, await passed(sealed2.address)]).toEqual(['silence', 0]);
    await borrow(sealed.namespace, b.address, network.plan.gateway);
    const escaped = await probe(sealed.namespace, { public: { to: PUBLIC, from: b.address } });
    expect([escaped.public, await passed(b.address)]).toEqual(['silence', 0]);
    // The true owners still can.
    expect(await probe(sealed2.namespace, { idp: { to: network.plan.idp, port: 443 } })).toEqual({
      idp: OPEN,
    });
    expect(await passed(sealed2.address)).toBeGreaterThan(0);
  });

  it('starts the identity provider anew while its last namespace is not quite gone', async () => {
    // As when the kernel, busy, removes it later than it was asked to.
    const held = openSync(namespacePath(idpNamespace(settings.instance)), 'r');
    try {
      for (const id of [ids.sealed, ids.sealed2]) await network.detach(id);
      for (const id of [ids.sealed, ids.sealed2])
        await network.attach(id, 'test', AbortSignal.timeout(60_000));
    } finally {
      closeSync(held);
    }
  });

  it('stops the identity provider with the last test machine, and a full stop leaves nothing', async () => {
    await network.detach(ids.sealed);
    expect(await probe(sealed2.namespace, { idp: { to: network.plan.idp, port: 443 } })).toEqual({
      idp: OPEN,
    });
    await network.detach(ids.sealed2);
    const kinds = (await auditSettled({ ...bench.config, hostNetns: host })).map(({ name }) => name);
    expect(kinds.filter((name) => name.includes('idp'))).toEqual([]);
    expect(forwarding()).toBe('1');
    await Promise.all([network.detach(ids.a), network.detach(ids.b)]);
    await network[Symbol.asyncDispose]();
    expect(forwarding()).toBe('0');
    const left = await auditSettled({ ...bench.config, hostNetns: host });
    // The run folder is the service's; it goes last.
    expect(left.filter(({ name }) => name !== bench.config.runDir)).toEqual([]);
  });

  it('takes another subnet when the wished one is a route of the host', async () => {
    await run(['ip', 'route', 'add', '10.213.7.0/24', 'via', PUBLIC], { netns: host });
    await using other = await Network.open(settings, [], AbortSignal.timeout(30_000));
    expect(other.plan.cidr).toBe('10.87.0.0/16');
    expect(other.notices.join()).toContain('overlaps a route');
  });
});
