/** The two resolvers, both dnsmasq: one that forwards public names, one that knows only the test identity provider. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { writeAtomic } from '../system/files.ts';
import { Service } from './service.ts';

const COMMON = [
  'keep-in-foreground',
  'log-facility=-',
  'no-resolv',
  'no-hosts',
  'no-poll',
  'bind-interfaces',
  'pid-file',
];

/** Forwards to `resolvers`; refuses answers that point into private ranges, and IPv6, which machines do not have. */
export function forwardingConfig(address: string, resolvers: readonly string[]): string {
  return [
    ...COMMON,
    `listen-address=${address}`,
    'except-interface=lo',
    'domain-needed',
    'bogus-priv',
    'stop-dns-rebind',
    'filter-AAAA',
    'cache-size=2000',
    ...resolvers.map((resolver) => `server=${resolver}`),
    '',
  ].join('\n');
}

/** Answers exactly `hosts`, all with `address`; every other name does not exist. */
export function sealedConfig(address: string, hosts: readonly string[]): string {
  return [
    ...COMMON,
    `listen-address=${address}`,
    'except-interface=lo',
    'address=/#/',
    ...hosts.map((host) => `host-record=${host},${address}`),
    '',
  ].join('\n');
}

/** Starts a dnsmasq with `config` inside a network namespace. It reads nothing below /etc. */
export async function startDns(
  options: { name: string; folder: string; config: string; netns: string; uid: number; log: Logger },
  signal?: AbortSignal,
): Promise<Service> {
  const path = join(options.folder, `${options.name}.conf`);
  await writeAtomic(path, options.config, 0o644);
  return Service.start(
    {
      name: options.name,
      argv: ['dnsmasq', `--conf-file=${path}`],
      netns: options.netns,
      uid: options.uid,
      cwd: '/',
      ready: (line) => line.includes('started, version'),
      readyTimeoutMs: 5000,
      failure: 'network_setup_failed',
      log: options.log,
    },
    signal,
  );
}

/** The host's own IPv4 resolvers, those on a loopback address (a local stub) excepted. */
export async function hostResolvers(): Promise<string[]> {
  const found = new Set<string>();
  // systemd-resolved keeps the real ones here when /etc/resolv.conf names its stub.
  for (const path of ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']) {
    const text = await readFile(path, 'utf8').catch(() => '');
    for (const [, address] of text.matchAll(/^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$/gm)) {
      if (address !== undefined && !address.startsWith('127.')) found.add(address);
    }
  }
  return [...found].slice(0, 3);
}
