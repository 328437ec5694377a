/** What programs that were killed have left: sockets, namespaces, mounts, leases. */
import { type Dirent, existsSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { audit } from '../leaks.ts';
import { namespacePath } from '../network/addresses.ts';
import { listIfThere, parseJson, readIfThere } from '../system/files.ts';
import { processesInNetworkNamespace, runs } from '../system/processes.ts';
import { type Check, ok, warn } from './check.ts';
import type { Examination } from './host.ts';

const MEND = './polydev up, then ./polydev down';
const some = (names: readonly string[]): string =>
  names.length <= 5 ? names.join('; ') : `${names.slice(0, 5).join('; ')}; and ${names.length - 5} more`;

export async function leftovers(host: Examination): Promise<Check> {
  if (host.running) return ok('leftovers', 'not looked for: this instance runs');
  const left = await audit(host);
  if (left.length === 0) return ok('leftovers', 'none');
  return warn('leftovers', `${left.length}: ${some(left.map(({ kind, name }) => `${kind} ${name}`))}`, MEND);
}

/** Sockets below a folder, at most so deep as instances have them. */
function socketsBelow(folder: string, depth = 4): string[] {
  let entries: Dirent[];
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isSocket()) return [path];
    return entry.isDirectory() && depth > 0 ? socketsBelow(path, depth - 1) : [];
  });
}

const CONNECT_MS = 1_000;

/** Whether somebody listens. Looking into the kernel's table would not do: it lists those of one network namespace only. */
function refuses(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const say = (refused: boolean): void => {
      socket.destroy();
      resolve(refused);
    };
    socket.setTimeout(CONNECT_MS, () => say(false));
    socket.once('connect', () => say(false));
    socket.once('error', (error: NodeJS.ErrnoException) => say(error.code === 'ECONNREFUSED'));
  });
}

/** A socket file that no program listens on, such as a dead hypervisor's, is in the way of the next one. */
export async function staleSockets({ runDir }: Examination): Promise<Check> {
  const all = socketsBelow(runDir);
  const stale: string[] = [];
  for (const path of all) if (await refuses(path)) stale.push(path);
  if (stale.length === 0)
    return ok('sockets', `${all.length} below ${runDir}, none without a program behind it`);
  return warn('sockets', `nobody listens on ${some(stale)}`, MEND);
}

const Service = z.object({ pid: z.number(), startTicks: z.number() });

/** Whether the host service of another instance runs: by the record it keeps in its run directory. */
async function serviceRuns(instance: string): Promise<boolean> {
  for (const folder of [`/run/polydev/${instance}/host`, `/run/polydev-${instance}`]) {
    const text = await readIfThere(join(folder, 'service.json'));
    const service = Service.safeParse(parseJson(text ?? ''));
    if (service.success && runs(service.data)) return true;
  }
  return false;
}

/** Network namespaces of other instances whose host service is gone and in which nothing runs. */
export async function strayNamespaces({ instance }: Examination): Promise<string[]> {
  const others = new Map<string, string[]>();
  for (const name of await listIfThere('/run/netns')) {
    const [, other] = /^pd-([a-z]{6})-/.exec(name) ?? [];
    if (other === undefined || other === instance) continue;
    others.set(other, [...(others.get(other) ?? []), name]);
  }
  const left: string[] = [];
  for (const [other, names] of others) {
    if (await serviceRuns(other)) continue;
    // Looked at only now: an instance that stops removes them one by one.
    const here = names.filter((name) => existsSync(namespacePath(name)));
    const used = here.some((name) => processesInNetworkNamespace(namespacePath(name)).length > 0);
    if (here.length > 0 && !used) left.push(...here);
  }
  return left;
}

export async function strangers(examination: Examination): Promise<Check> {
  const left = await strayNamespaces(examination);
  if (left.length === 0) return ok('other instances', 'none has left anything');
  return warn(
    'other instances',
    `no host service has these network namespaces any more: ${some(left)}`,
    left
      .slice(0, 5)
      .map((name) => `ip netns del ${name}`)
      .join('; '),
  );
}
