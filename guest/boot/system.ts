import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import type { GuestConfig } from '../../protocol/machine.ts';
import type { AgentLog } from '../log.ts';

export const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';
const CHROMIUM_POLICY = '/etc/chromium/policies/managed/polydev-ca.json';

/**
 * Writes names, resolvers and extra authorities into the guest's own /etc (`root` is the place of `/`, for tests).
 * Each part can fail by itself without ending the boot: it is logged, and what depends on it will say more.
 */
export function setUpSystem(config: GuestConfig, log: AgentLog, root = '/'): void {
  const attempt = (what: string, work: () => void) => {
    try {
      work();
    } catch (error) {
      log.add('boot', `${what}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  const at = (file: string) => path.join(root, file);

  attempt('resolvers', () => {
    if (config.dns === undefined) return;
    // Name servers that do not answer are given up soon: a person waits for the page.
    const lines = [...config.dns.map((address) => `nameserver ${address}`), 'options timeout:2 attempts:3'];
    writeFileSync(at('/etc/resolv.conf'), `${lines.join('\n')}\n`);
  });
  attempt('hosts', () => {
    const lines = ['127.0.0.1 localhost', `127.0.1.1 ${config.hostname}`, '::1 localhost ip6-localhost'];
    writeFileSync(at('/etc/hosts'), `${lines.join('\n')}\n`);
  });
  attempt('host name', () => {
    // The namespace driver has set it already; in a virtual machine nobody else does.
    if (root === '/' && hostname() !== config.hostname) {
      writeFileSync('/proc/sys/kernel/hostname', config.hostname);
    }
  });
  const { ca } = config;
  if (ca !== undefined) {
    attempt('authorities', () => addAuthorities(at(CA_BUNDLE), ca));
    attempt('authorities of Chromium', () => {
      const policy = { CACertificates: certificates(ca) };
      mkdirSync(path.dirname(at(CHROMIUM_POLICY)), { recursive: true });
      writeFileSync(at(CHROMIUM_POLICY), JSON.stringify(policy));
    });
  }
}

/** The certificates of a PEM text, each as base64 of its DER form. */
export function certificates(pem: string): string[] {
  const blocks = pem.matchAll(/-----BEGIN CERTIFICATE-----([\sA-Za-z0-9+/=]+)-----END CERTIFICATE-----/g);
  return Array.from(blocks, (block) => (block[1] ?? '').replace(/\s+/g, ''));
}

/** Appends once: the agent may be started again in the same machine. */
function addAuthorities(bundle: string, pem: string): void {
  const before = readFileSync(bundle, 'utf8');
  if (before.includes(pem.trim())) return;
  writeFileSync(bundle, `${before.trimEnd()}\n${pem.trim()}\n`);
}
