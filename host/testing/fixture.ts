/** host/testing/: what the suites of the host service share. Real root, real image, an instance of their own each. */
import { randomInt } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Logger, pino } from 'pino';
import { newMachineId } from '../../protocol/ids.ts';
import type { MachineSpec } from '../../protocol/machine.ts';
import { HostConfig } from '../config.ts';
import { findVmParts } from '../images/vm.ts';
import { missingPackages } from '../requirements.ts';

export const IMAGE_CACHE = `${process.env.POLYDEV_CACHE ?? '/var/cache/polydev'}/images`;
export const CHECKOUT = resolve(import.meta.dirname, '../..');

/** What this computer lacks to run machines; undefined when it has all. */
export function lacking(options: { image: boolean }): string | undefined {
  if (process.getuid?.() !== 0) return 'root';
  const packages = missingPackages();
  if (packages.length > 0) return `packages ${packages.join(' ')}`;
  if (options.image && !existsSync(join(IMAGE_CACHE, 'current'))) return 'a golden image';
  return undefined;
}

/** The same for virtual machines under QEMU. */
export async function lackingForVirtual(): Promise<string | undefined> {
  const missing = lacking({ image: true });
  if (missing !== undefined) return missing;
  if (!existsSync('/usr/bin/qemu-system-x86_64')) return 'the package qemu-system-x86';
  const parts = await findVmParts({ cacheDir: IMAGE_CACHE, checkout: CHECKOUT });
  return parts === undefined ? 'the kernel of virtual machines (./polydev image build --vm)' : undefined;
}

/** The same under Firecracker. That /dev/kvm opens proves nothing: who runs this says so. */
export async function lackingForFirecracker(): Promise<string | undefined> {
  const missing = await lackingForVirtual();
  if (missing !== undefined) return missing;
  if (process.env.POLYDEV_FIRECRACKER === undefined) return 'Firecracker (POLYDEV_FIRECRACKER)';
  if (process.env.POLYDEV_KVM === 'yes') return undefined;
  return 'a KVM that runs guests (POLYDEV_KVM=yes); ./polydev test kvm has one';
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
export const randomInstance = (): string =>
  Array.from({ length: 6 }, () => LETTERS[randomInt(LETTERS.length)]).join('');

export interface Bench extends Disposable {
  config: HostConfig;
  log: Logger;
}

/** Folders and settings of an instance nobody else has; the folders go with it. */
export function newInstance(): Bench {
  const instance = randomInstance();
  const dataDir = mkdtempSync(join(tmpdir(), 'polydev-host-'));
  chmodSync(dataDir, 0o711);
  const runDir = `/run/polydev-${instance}`;
  const config = HostConfig.parse({
    instance,
    dataDir,
    runDir,
    socketPath: join(runDir, 'host.sock'),
    socketUid: 0,
    imageCacheDir: IMAGE_CACHE,
    uplink: 'none',
    nodePath: process.execPath,
    checkout: CHECKOUT,
    sharedDir: `/run/polydev-${instance}-shared`,
    logLevel: 'silent',
  });
  return {
    config,
    log: pino({ level: 'silent' }),
    [Symbol.dispose]: () => {
      for (const folder of [dataDir, config.sharedDir]) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The same for the Firecracker that the caller named. */
export function newFirecrackerInstance(): Disposable & { config: HostConfig } {
  const { POLYDEV_FIRECRACKER: firecracker, POLYDEV_JAILER: jailer } = process.env;
  const made = newInstance();
  return { config: { ...made.config, firecracker, jailer }, [Symbol.dispose]: () => made[Symbol.dispose]() };
}

/** A small machine; `changes` replace fields. */
export const newSpec = (changes: Partial<MachineSpec> = {}): MachineSpec => ({
  id: newMachineId(),
  kind: 'browser',
  realm: 'internet',
  limits: { cpus: 1, memoryMiB: 256, pids: 64 },
  display: { width: 1280, height: 800 },
  agentTokenHash: '0'.repeat(64),
  ...changes,
});

/** A guest whose first process runs a JavaScript text with the image's Node. */
export const nodeGuest = (script: string): string[] => [
  '/usr/bin/tini',
  '--',
  '/usr/local/bin/node',
  '-e',
  script,
];
export const shellGuest = (script: string): string[] => ['/usr/bin/tini', '--', '/bin/sh', '-c', script];

/** Stands in for the agent on the inherited channel: answers every connection's bytes in upper case. */
export const UPPER_CASE_AGENT = nodeGuest(`
  console.log('guest is up');
  require('net').createServer({ allowHalfOpen: true }, (c) => {
    let text = '';
    c.on('data', (b) => (text += b)).on('end', () => c.end(text.toUpperCase()));
  }).listen({ fd: 3 });
`);
