/** The router's way out: one link into the host's namespace, one table there, and the forwarding switch. */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { run } from '../system/command.ts';
import { createExclusive, listIfThere, readIfThere } from '../system/files.ts';
import { inNetworkNamespace } from '../system/syscalls.ts';
import { type AddressPlan, hostTable, namespacePath, routerNamespace, uplinkName } from './addresses.ts';
import { hostRules } from './rules.ts';

const failure = 'network_setup_failed';
const FORWARDING = '/proc/sys/net/ipv4/ip_forward';

export interface UplinkSettings {
  instance: string;
  /** The namespace that has the internet: none is the host's own; tests name one of theirs. */
  hostNetns?: string | undefined;
  /** Shared by every instance on this host: who needs forwarding, and how it was before the first came. */
  forwardingFolder: string;
}

/** Destinations of the host's IPv4 routes. */
export async function hostRoutes(hostNetns: string | undefined): Promise<string[]> {
  const text = await run(['ip', '-4', '-j', 'route', 'show', 'table', 'all'], { netns: hostNetns, failure });
  const routes = z.array(z.object({ dst: z.string() })).parse(JSON.parse(text || '[]'));
  return routes.map((route) => route.dst);
}

const inHost = <T>(hostNetns: string | undefined, work: () => T): T =>
  hostNetns === undefined ? work() : inNetworkNamespace(hostNetns, work);

/** Connects the router and returns nothing: removeUplink undoes it, by name. */
export async function openUplink(
  settings: UplinkSettings,
  plan: AddressPlan,
  resolvers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const { instance, hostNetns, forwardingFolder } = settings;
  const link = uplinkName(instance);
  const router = routerNamespace(instance);
  await run(['nft', '-f', '-'], {
    netns: hostNetns,
    input: hostRules(instance, plan, resolvers),
    failure,
    signal,
  });
  await run(['ip', '-batch', '-'], {
    netns: hostNetns,
    input: [
      `link add ${link} type veth peer name up0 netns ${router}`,
      `link set ${link} addrgenmode none up`,
      `addr add ${plan.uplinkHost}/30 dev ${link}`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
  await run(['ip', '-batch', '-'], {
    netns: namespacePath(router),
    input: [
      'link set up0 addrgenmode none up',
      `addr add ${plan.uplinkRouter}/30 dev up0`,
      `route add default via ${plan.uplinkHost}`,
      '',
    ].join('\n'),
    failure,
    signal,
  });
  await mkdir(forwardingFolder, { recursive: true, mode: 0o700 });
  const before = inHost(hostNetns, () => readFileSync(FORWARDING, 'utf8').trim());
  await createExclusive(join(forwardingFolder, 'before'), before);
  await createExclusive(join(forwardingFolder, `used-by-${instance}`), '');
  if (before !== '1') inHost(hostNetns, () => writeFileSync(FORWARDING, '1'));
}

/** Takes the link and the table away; the last instance also puts the forwarding switch back. Idempotent. */
export async function removeUplink({ instance, hostNetns, forwardingFolder }: UplinkSettings): Promise<void> {
  const table = hostTable(instance);
  // Adding what may exist makes the delete certain to find it.
  await run(['nft', '-f', '-'], {
    netns: hostNetns,
    input: `add table inet ${table}\ndelete table inet ${table}\n`,
    failure,
  });
  await run(['ip', 'link', 'del', uplinkName(instance)], { netns: hostNetns }).catch(() => undefined);
  await rm(join(forwardingFolder, `used-by-${instance}`), { force: true });
  const users = (await listIfThere(forwardingFolder)).filter((name) => name.startsWith('used-by-'));
  if (users.length > 0) return;
  const before = await readIfThere(join(forwardingFolder, 'before'));
  if (before !== undefined && before !== '1') inHost(hostNetns, () => writeFileSync(FORWARDING, before));
  await rm(forwardingFolder, { recursive: true, force: true });
}
