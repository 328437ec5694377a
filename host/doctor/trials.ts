/** What the kernel must be able to do, tried in places of its own that are gone afterwards. */
import { randomInt } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { probe } from '../drivers/namespace/probe.ts';
import { openImageStore } from '../images/store.ts';
import { namespacePath, planSubnet } from '../network/addresses.ts';
import { removeNamespace } from '../network/router.ts';
import { routerRules } from '../network/rules.ts';
import { cgroupOfInstance, removeCgroup } from '../system/cgroups.ts';
import { run } from '../system/command.ts';
import { ExitWatch } from '../system/exit.ts';
import { removeTree } from '../system/files.ts';
import { Leases } from '../system/leases.ts';
import { type Check, fail, ok } from './check.ts';

/** The steps of the driver's own trial, in its order, and what mends each. */
const STEPS: readonly (readonly [step: string, remedy: string])[] = [
  ['ids', 'ls /run/polydev-shared/ids   (remove claims whose owner is gone)'],
  ['user namespace', 'sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1'],
  ['network namespace', 'a kernel with CONFIG_NET_NS; inside a container: run it privileged'],
  ['image layers', 'modprobe erofs loop   (or: ./polydev image verify)'],
  ['idmapped overlay', 'a kernel from 5.19 on with erofs and overlay'],
  ['runc', 'apt-get install --no-install-recommends --reinstall runc'],
  ['guest', 'read the fact: the smallest machine ran and failed'],
];

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
const scratchInstance = (): string => Array.from({ length: 6 }, () => LETTERS[randomInt(26)]).join('');

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
  if (at === -1) return [fail('smallest machine', problem, 'read the fact')];
  return STEPS.slice(0, at + 1).map(([step, remedy], index) =>
    index < at ? ok(step, 'the smallest machine came past it') : fail(step, problem, remedy),
  );
}

/** Bridge, veth and both families of packet filters, in a network namespace of its own. */
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
  return checks;
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
