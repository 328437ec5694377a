/** What the kernel must be able to do, tried in places of its own that are gone afterwards. */
import { randomInt } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { probe } from '../drivers/namespace/probe.ts';
import { openImageStore } from '../images/store.ts';
import { namespacePath, planSubnet } from '../network/addresses.ts';
import { forwardingConfig, startDns } from '../network/dns.ts';
import { removeNamespace } from '../network/router.ts';
import { routerRules } from '../network/rules.ts';
import { cgroupOfInstance, removeCgroup } from '../system/cgroups.ts';
import { run } from '../system/command.ts';
import { ExitWatch } from '../system/exit.ts';
import { removeTree } from '../system/files.ts';
import { Leases } from '../system/leases.ts';
import { attempt, type Check, fail, ok } from './check.ts';

/** The steps of the driver's own trial, in its order, and what mends each. */
const STEPS: readonly (readonly [step: string, remedy: string])[] = [
  ['ids', 'ls /run/polydev-shared/ids   (remove claims whose owner is gone)'],
  ['user namespace', 'sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1'],
  ['network namespace', 'a kernel with CONFIG_NET_NS; inside a container: run it privileged'],
  ['image layers', 'modprobe erofs loop   (or: ./polydev image verify)'],
  ['private disk', 'modprobe loop ext4; apt-get install --no-install-recommends e2fsprogs'],
  ['idmapped overlay', 'a kernel from 5.19 on with erofs and overlay'],
  ['runc', 'apt-get install --no-install-recommends --reinstall runc'],
  ['guest', 'read the evidence: the smallest machine ran and failed'],
];

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
/** A name for what is made here and gone afterwards. */
export const scratchInstance = (): string => Array.from({ length: 6 }, () => LETTERS[randomInt(26)]).join('');

/** Starts the smallest machine, as the host service does: one result per step. */
export async function tryMachine(imageCacheDir: string, signal: AbortSignal): Promise<Check[]> {
  const instance = scratchInstance();
  const runFolder = `/run/polydev-doctor-${instance}`;
  const images = openImageStore(imageCacheDir, { runDir: runFolder });
  const exits = new ExitWatch();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTree(runFolder));
  undo.defer(() => images.unmountAll());
  undo.defer(() => removeCgroup(cgroupOfInstance(instance)));
  undo.use(exits);
  // What waits for the end of the guest does not keep a process alive by itself.
  const awake = setInterval(() => undefined, 1000);
  undo.defer(() => clearInterval(awake));
  await mkdir(runFolder, { recursive: true, mode: 0o711 });
  const idLeases = new Leases(join(runFolder, 'ids'));
  const report = await probe({ instance, runFolder, images, idLeases, exits }, signal);
  const [problem] = report.problems;
  if (problem === undefined) {
    return STEPS.map(([step]) => ok(step, `the smallest machine came past it (${report.ms} ms in all)`));
  }
  const at = STEPS.findIndex(([step]) => problem.startsWith(`${step}:`));
  if (at === -1) return [fail('smallest machine', problem, 'read the evidence')];
  return STEPS.slice(0, at + 1).map(([step, remedy], index) =>
    index < at ? ok(step, 'the smallest machine came past it') : fail(step, problem, remedy),
  );
}

/** Bridge, veth, TAP, both families of packet filters and the resolver, in a network namespace of its own. */
export async function tryNetwork(signal: AbortSignal): Promise<Check[]> {
  const name = `pd-${scratchInstance()}-doctor`;
  const netns = namespacePath(name);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeNamespace(name));
  await run(['ip', 'netns', 'add', name], { signal });
  const trials: [string, readonly string[], string | undefined, string][] = [
    ['bridge', ['ip', 'link', 'add', 'br0', 'type', 'bridge'], undefined, 'modprobe bridge'],
    ['veth', ['ip', 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1'], undefined, 'modprobe veth'],
    [
      'tap',
      // With the header that hypervisors need, and then on the bridge.
      ['ip', '-batch', '-'],
      'tuntap add t0 mode tap vnet_hdr\nlink set t0 master br0\n',
      'modprobe tun   (inside a container: give it /dev/net/tun)',
    ],
    [
      'packet filters',
      ['nft', '-f', '-'],
      // The very rules of a router.
      routerRules(planSubnet('10.213.0.0/26'), []),
      'modprobe -a nf_tables nft_ct nft_masq nft_reject_inet nft_meta_bridge   (or a kernel that has them)',
    ],
  ];
  const checks: Check[] = [];
  for (const [title, argv, input, remedy] of trials) {
    try {
      await run(argv, { netns, signal, ...(input === undefined ? {} : { input }) });
      checks.push(ok(title, 'made one'));
    } catch (error) {
      checks.push(fail(title, error instanceof Error ? error.message : String(error), remedy));
    }
  }
  checks.push(...(await attempt('dns server', REINSTALL_DNS, () => tryResolver(netns, signal))));
  return checks;
}

const REINSTALL_DNS = 'apt-get install --no-install-recommends --reinstall dnsmasq-base';
/** Of the user that the trial's resolver runs as: nobody's, and far from what machines get. */
const RESOLVER_UID = 65_533;

/** Starts the resolver of machines as the host service does: on port 53 of an address of its own, without root. */
async function tryResolver(netns: string, signal: AbortSignal): Promise<Check> {
  const folder = `/run/polydev-doctor-${scratchInstance()}`;
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTree(folder));
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await run(['ip', '-batch', '-'], {
    netns,
    signal,
    input: 'addr add 10.213.0.1/26 dev br0\nlink set br0 up\n',
  });
  const config = forwardingConfig('10.213.0.1', []);
  const log = pino({ level: 'silent' });
  undo.use(await startDns({ name: 'doctor-dns', folder, config, netns, uid: RESOLVER_UID, log }, signal));
  return ok('dns server', 'dnsmasq started and listens on port 53');
}

const NEEDED = ['cpu', 'memory', 'pids'];

/** The controllers that limits need, in version 2 (one tree) or version 1 (one tree each). */
export function cgroupControllers(): Check {
  const root = '/sys/fs/cgroup';
  const unified = join(root, 'cgroup.controllers');
  const [version, there] = existsSync(unified)
    ? [2, readFileSync(unified, 'utf8').trim().split(/\s+/)]
    : [1, readdirSync(root).flatMap((name) => name.split(','))];
  const missing = NEEDED.filter((name) => !there.includes(name));
  if (missing.length === 0) return ok('cgroups', `version ${version} with ${NEEDED.join(', ')}`);
  return fail(
    'cgroups',
    `version ${version} without ${missing.join(', ')}`,
    'boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory',
  );
}
