/** All checks of a host, in the order in which they depend on each other. */
import { closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { z } from 'zod';
import { hostMemory, imageFacts, spaceOf } from '../evidence/facts.ts';
import { openImageStore } from '../images/store.ts';
import { audit } from '../leaks.ts';
import { hostTable } from '../network/addresses.ts';
import { hostResolvers } from '../network/dns.ts';
import { missingPackages } from '../requirements.ts';
import { run } from '../system/command.ts';
import { attempt, type Check, fail, ok, warn } from './check.ts';
import { cgroupControllers, tryMachine, tryNetwork } from './trials.ts';

export interface Examination {
  readonly checkout: string;
  readonly imageCacheDir: string;
  readonly dataDir: string;
  readonly instance: string;
  readonly runDir: string;
  readonly sharedDir: string;
  /** Whether this instance runs now: then what it holds is no leftover. */
  readonly running: boolean;
}

const BUILD = './polydev image build';

/** Never throws. Makes nothing that stays. About a second, and what reading the image once takes. */
export async function examineHost(host: Examination, signal: AbortSignal): Promise<Check[]> {
  if (process.getuid?.() !== 0) {
    return [fail('root', `runs as user ${process.getuid?.()}`, 'sudo ./polydev doctor')];
  }
  const checks: Check[] = [ok('root', 'runs as root'), ok('kernel', release())];
  const packages = missingPackages();
  if (packages.length > 0) {
    const install = `apt-get install --no-install-recommends ${packages.join(' ')}`;
    // Nothing can be tried without the programs that try it.
    return [...checks, fail('programs', `not installed: ${packages.join(', ')}`, install)];
  }
  checks.push(ok('programs', 'all are installed'));
  const parts: [string, string, () => Promise<Check | Check[]>][] = [
    ['memory', 'free memory', memory],
    ['disk', 'free disk space', () => disk(host.dataDir)],
    ['image', BUILD, () => image(host)],
    ['cgroups', 'mount -t cgroup2 none /sys/fs/cgroup', async () => cgroupControllers()],
    ['smallest machine', 'read the fact', () => tryMachine(host.imageCacheDir, signal)],
    ['network', 'read the fact', () => tryNetwork(signal)],
    ['forwarding', 'read the fact', () => forwarding(host.instance)],
    ['resolver', 'set "resolvers" in the settings of the host service', resolver],
    ['kvm', 'none: machines run without it', async () => kvm()],
    ['clock', 'timedatectl set-ntp true', () => clock(host)],
    ['leftovers', './polydev up, then ./polydev down', () => leftovers(host)],
  ];
  for (const [name, remedy, work] of parts) checks.push(...(await attempt(name, remedy, work)));
  return checks;
}

async function memory(): Promise<Check> {
  const { total, available } = await hostMemory();
  const fact = `${available} of ${total} MiB are available`;
  // The limit of one browser machine by default.
  return available < 2048 ? warn('memory', fact, 'end other programs or add memory') : ok('memory', fact);
}

async function disk(dataDir: string): Promise<Check> {
  let folder = dataDir;
  while (!existsSync(folder)) folder = dirname(folder);
  const mib = Math.round((await spaceOf(folder)).available / 1024);
  const fact = `${mib} MiB are free under ${folder}`;
  const remedy = `free space under ${folder}, or choose another folder with --data`;
  if (mib < 1024) return fail('disk', fact, remedy);
  return mib < 8192 ? warn('disk', fact, remedy) : ok('disk', fact);
}

async function image({ imageCacheDir, checkout }: Examination): Promise<Check[]> {
  const images = openImageStore(imageCacheDir);
  const current = await images.current();
  if (current === undefined) return [fail('image', `there is none in ${imageCacheDir}`, BUILD)];
  const facts = await imageFacts(images, imageCacheDir, current.id, true);
  const broken = (facts?.layers ?? []).filter(({ state }) => state !== 'whole');
  const whole =
    broken.length === 0
      ? ok('image', `${current.id}: every byte is as verified at ${current.verified}`)
      : broken.every(({ state }) => state === 'unread')
        ? warn('image', `${current.id}: its large layers could not be read in time`, './polydev image verify')
        : fail(
            'image',
            broken.map(({ file, state }) => `${file}: ${state.replace('_', ' ')}`).join('; '),
            `rm ${broken.map(({ file }) => `${imageCacheDir}/${file}`).join(' ')}; ${BUILD}`,
          );
  const expected = await images.expected(checkout);
  return expected === current.id
    ? [whole]
    : [whole, warn('image version', `${current.id}; this checkout's recipe gives ${expected}`, BUILD)];
}

const Chains = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
});

/** A chain of somebody else's that drops what is forwarded by default, as Docker's does. */
async function forwarding(instance: string): Promise<Check[]> {
  const on = readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim() === '1';
  const chains = Chains.parse(JSON.parse(await run(['nft', '-j', 'list', 'chains']))).nftables;
  const drops = chains
    .map(({ chain }) => chain)
    .filter((chain) => chain?.hook === 'forward' && chain.policy === 'drop')
    .filter((chain) => chain !== undefined && ['ip', 'inet'].includes(chain.family))
    .filter((chain) => chain?.table !== hostTable(instance));
  const state = ok('forwarding', on ? 'ip_forward is on' : 'ip_forward is off; the host service turns it on');
  const [first] = drops;
  if (first === undefined) return [state];
  return [
    state,
    warn(
      'firewall',
      `chain ${first.name} of table ${first.family} ${first.table} drops what is forwarded by default`,
      'iptables -I FORWARD -i pdu+ -j ACCEPT; iptables -I FORWARD -o pdu+ -m state --state RELATED,ESTABLISHED -j ACCEPT',
    ),
  ];
}

async function resolver(): Promise<Check> {
  const found = await hostResolvers();
  if (found.length > 0) return ok('resolver', `machines' names are asked from ${found.join(', ')}`);
  return warn(
    'resolver',
    'this host names no resolver that machines could use; names of the internet will not resolve',
    'set "resolvers" in the settings of the host service',
  );
}

/** Opening it proves nothing: the trial of a driver that uses it is what does. */
function kvm(): Check {
  if (!existsSync('/dev/kvm'))
    return ok(
      'kvm',
      'absent: firecracker and qemu with hardware virtualization do not run here; namespaces do',
    );
  try {
    closeSync(openSync('/dev/kvm', constants.O_RDWR));
    return ok('kvm', 'present and opens; whether a guest runs is not proven');
  } catch (error) {
    return ok('kvm', `present, but does not open (${(error as NodeJS.ErrnoException).code}); not needed`);
  }
}

/** A clock far behind breaks every certificate: it cannot be before the image was made. */
async function clock({ imageCacheDir }: Examination): Promise<Check> {
  const now = new Date();
  const made = (await openImageStore(imageCacheDir).current())?.verified;
  if (made !== undefined && now.getTime() < Date.parse(made)) {
    return fail(
      'clock',
      `it says ${now.toISOString()}, and the image was verified at ${made}`,
      'timedatectl set-ntp true',
    );
  }
  return ok('clock', `it says ${now.toISOString()}`);
}

async function leftovers(host: Examination): Promise<Check> {
  if (host.running) return ok('leftovers', 'not looked for: this instance runs');
  const left = await audit(host);
  if (left.length === 0) return ok('leftovers', 'none');
  const names = left.slice(0, 5).map(({ kind, name }) => `${kind} ${name}`);
  return warn('leftovers', `${left.length}: ${names.join('; ')}`, './polydev up, then ./polydev down');
}
