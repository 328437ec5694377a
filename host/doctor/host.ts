/** All checks of a host, in the order in which they depend on each other. */
import { release } from 'node:os';
import type { HostConfig } from '../config.ts';
import { missingPackages } from '../requirements.ts';
import { attempt, type Check, fail, ok } from './check.ts';
import { clock } from './clock.ts';
import { image, vmKernel } from './image.ts';
import { leftovers, staleSockets, strangers } from './leftovers.ts';
import { addresses, firewalls, forwarding, resolver } from './network.ts';
import { dataFolder, disk, loopDevices, memory } from './resources.ts';
import { cgroupControllers, tryMachine, tryNetwork } from './trials.ts';
import { hypervisor, kvm } from './virtualization.ts';

export interface Examination {
  readonly checkout: string;
  readonly imageCacheDir: string;
  readonly dataDir: string;
  readonly instance: string;
  readonly runDir: string;
  readonly sharedDir: string;
  /** Whether this instance runs now: then what it holds is no leftover. */
  readonly running: boolean;
  /** What is to run machines; absent: `auto`. */
  readonly driver?: HostConfig['driver'];
  /** `none`: the host's own network is not used. Absent: `nat`. */
  readonly uplink?: 'nat' | 'none';
  /** Of machines; absent: the default. */
  readonly subnet?: string;
}

const BUILD = './polydev image build';
const [OLDEST_MAJOR, OLDEST_MINOR] = [5, 19];

/** Never throws. Makes nothing that stays. A few seconds, and what reading the image once takes. */
export async function examineHost(host: Examination, signal: AbortSignal): Promise<Check[]> {
  if (process.getuid?.() !== 0) {
    return [fail('root', `runs as user ${process.getuid?.()}`, 'sudo ./polydev doctor')];
  }
  const checks: Check[] = [ok('root', 'runs as root'), kernel()];
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
    ['data folder', 'choose another folder with --data', () => dataFolder(host.dataDir)],
    ['image', BUILD, () => image(host)],
    ['cgroups', 'mount -t cgroup2 none /sys/fs/cgroup', async () => cgroupControllers()],
    ['loop devices', 'modprobe loop', async () => loopDevices()],
    ['smallest machine', 'read the evidence', () => tryMachine(host.imageCacheDir, signal)],
    ['hypervisor', 'apt-get install --no-install-recommends qemu-system-x86', async () => hypervisor(host)],
    ['vm kernel', './polydev image build --vm', () => vmKernel(host)],
    ['kvm', 'read the evidence', () => kvm(host, signal)],
    ['network', 'read the evidence', () => tryNetwork(signal)],
    ['addresses', 'set "subnet" in the settings of the host service', () => addresses(host)],
    ['forwarding', 'sysctl -w net.ipv4.ip_forward=1', async () => forwarding(host)],
    ['firewall', 'read the evidence', () => firewalls(host, signal)],
    ['resolver', 'set "resolvers" in the settings of the host service', () => resolver(host)],
    ['clock', 'timedatectl set-ntp true', () => clock(host)],
    ['sockets', './polydev up, then ./polydev down', () => staleSockets(host)],
    ['leftovers', './polydev up, then ./polydev down', () => leftovers(host)],
    ['other instances', 'read the evidence', () => strangers(host)],
  ];
  for (const [name, remedy, work] of parts) checks.push(...(await attempt(name, remedy, work)));
  return checks;
}

function kernel(): Check {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const newEnough = major > OLDEST_MAJOR || (major === OLDEST_MAJOR && minor >= OLDEST_MINOR);
  if (newEnough) return ok('kernel', release());
  const wanted = `${OLDEST_MAJOR}.${OLDEST_MINOR}`;
  return fail('kernel', `${release()}, older than ${wanted}`, `boot a kernel from ${wanted} on`);
}
