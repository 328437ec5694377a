/** The sealed world of test machines: a namespace with the test identity provider and a resolver that knows only it. */
import { existsSync } from 'node:fs';
import { lchown, mkdir, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { PLAIN_ENVIRONMENT, run } from '../system/command.ts';
import { removeTree } from '../system/files.ts';
import { endProcess, processesInNetworkNamespace } from '../system/processes.ts';
import { bindFolder, bindReadOnly, unmount } from '../system/syscalls.ts';
import { type AddressPlan, idpNamespace, namespacePath, routerNamespace } from './addresses.ts';
import { sealedConfig, startDns } from './dns.ts';
import { removeNamespace } from './router.ts';
import { Service } from './service.ts';

const Ready = z.object({ ready: z.literal(true), ca: z.string(), hosts: z.array(z.hostname()).min(1) });

export interface IdpSettings {
  /** Of this computer, where it is emulated. */
  slowdown?: number | undefined;
  instance: string;
  plan: AddressPlan;
  /** The repository and the Node binary. They and the state are bound into `runFolder`: an unprivileged user may
   * not be able to go where they are (a checkout in /root). */
  checkout: string;
  nodePath: string;
  /** The identity provider's script, relative to the checkout. */
  script: string;
  /** Where it keeps its authority, and its control socket `control.sock`. */
  stateFolder: string;
  /** Folder of its own for mounts and generated files. */
  runFolder: string;
  uids: { idp: number; dns: number };
  log: Logger;
}

export interface Idp extends AsyncDisposable {
  /** PEM of the authority that signed its certificates. */
  ca: string;
}

/** The router's end of its link. */
const LINK = 'idp0';

/** Removes whatever there is of it: processes, link, namespace, mounts, files but its state. */
export async function reclaimIdp(instance: string, runFolder: string): Promise<void> {
  const name = idpNamespace(instance);
  await Promise.all(processesInNetworkNamespace(namespacePath(name)).map((found) => endProcess(found, 2000)));
  const router = namespacePath(routerNamespace(instance));
  // The link would go with the namespace, but later: whoever makes a new one at once finds the old one in the way.
  if (existsSync(router)) await run(['ip', 'link', 'del', LINK], { netns: router }).catch(() => undefined);
  await removeNamespace(name);
  for (const path of ['checkout', 'node', 'state']) while (unmount(join(runFolder, path)));
  await removeTree(runFolder);
}

/**
 * A folder and everything in it. Never through a link, unlike readdir's own recursion: what is in there was written by a
 * process that talks to guests.
 */
export async function ownFiles(folder: string): Promise<string[]> {
  const found = [folder];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    found.push(...(entry.isDirectory() ? await ownFiles(path) : [path]));
  }
  return found;
}

/** Starts it. Throws `test_provider_failed` or `network_setup_failed`; nothing is left behind then. */
export async function startIdp(settings: IdpSettings, signal: AbortSignal): Promise<Idp> {
  const { instance, plan, runFolder, stateFolder, uids, log } = settings;
  const name = idpNamespace(instance);
  const netns = namespacePath(name);
  await using undo = new AsyncDisposableStack();
  await reclaimIdp(instance, runFolder);
  undo.defer(() => reclaimIdp(instance, runFolder));

  await mkdir(runFolder, { recursive: true, mode: 0o755 });
  await mkdir(stateFolder, { recursive: true, mode: 0o700 });
  // Its id may be another one than in its last life.
  for (const path of await ownFiles(stateFolder)) await lchown(path, uids.idp, uids.idp);
  const checkout = join(runFolder, 'checkout');
  const node = join(runFolder, 'node');
  await mkdir(checkout);
  await (await open(node, 'w')).close();
  bindReadOnly(settings.checkout, checkout);
  bindReadOnly(settings.nodePath, node);
  const state = join(runFolder, 'state');
  await mkdir(state);
  bindFolder(stateFolder, state);

  const failure = 'network_setup_failed';
  await run(['ip', '-batch', '-'], {
    netns: namespacePath(routerNamespace(instance)),
    input: [
      `netns add ${name}`,
      `link add ${LINK} type veth peer name eth0 netns ${name}`,
      `link set ${LINK} addrgenmode none up`,
      `addr add ${plan.idpRouter}/30 dev ${LINK}`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
  await run(['ip', '-batch', '-'], {
    netns,
    input: [
      'link set lo up',
      'link set eth0 addrgenmode none up',
      `addr add ${plan.idp}/30 dev eth0`,
      `route add default via ${plan.idpRouter}`,
      '',
    ].join('\n'),
    failure,
    signal,
  });

  let ready: z.infer<typeof Ready> | undefined;
  const service = await Service.start(
    {
      name: 'test identity provider',
      argv: [
        node,
        join(checkout, settings.script),
        ...['--listen', plan.idp, '--port', '443', '--state', state],
        ...['--control', join(state, 'control.sock')],
      ],
      netns,
      uid: uids.idp,
      cwd: checkout,
      env: { ...PLAIN_ENVIRONMENT, HOME: state },
      ready: (line) => {
        if (!line.startsWith('{"ready"')) return false;
        const parsed = Ready.safeParse(JSON.parse(line));
        ready = parsed.data;
        return parsed.success;
      },
      readyTimeoutMs: 30_000 * (settings.slowdown ?? 1),
      failure: 'test_provider_failed',
      log,
    },
    signal,
  );
  undo.use(service);
  if (ready === undefined) throw new PolydevError('test_provider_failed', 'it told no hosts');
  const ca = await readFile(ready.ca, 'utf8');
  const config = sealedConfig(plan.idp, ready.hosts);
  undo.use(await startDns({ name: 'idp-dns', folder: runFolder, config, netns, uid: uids.dns, log }, signal));

  const ending = undo.move();
  return { ca, [Symbol.asyncDispose]: () => ending.disposeAsync() };
}
