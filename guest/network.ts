/** What is so of the machine's interface, from inside: who gives it addresses, and which it has. */
import { readdirSync, readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import type { GuestNetwork } from '../protocol/agent.ts';

const INTERFACE = 'eth0';
/** What networkd writes down of each link (systemd.network(5), networkctl). */
const LINKS = '/run/systemd/netif/links';
/** As the kernel calls them: clients of DHCP, and managers of networks. */
const OTHERS: ReadonlySet<string> = new Set([
  ...['dhclient', 'dhcpcd', 'udhcpc', 'udhcpc6', 'pump'],
  ...['NetworkManager', 'connmand', 'wickedd', 'netplan', 'ifplugd'],
]);
/** Looking through all processes costs an emulated machine something; who asks every second gets what was so a moment ago. */
const FRESH_MS = 15_000;

let last: { at: number; network: GuestNetwork } | undefined;

/** Never throws: what cannot be read is not there. */
export function guestNetwork(): GuestNetwork {
  const now = performance.now();
  if (last === undefined || now - last.at > FRESH_MS) last = { at: now, network: look() };
  return last.network;
}

/** The interface has just been changed, and nothing else: that is read again. */
export function readInterfaceAgain(): void {
  if (last !== undefined) last = { at: performance.now(), network: { ...last.network, ...ofInterface() } };
}

const look = (): GuestNetwork => ({ ...ofInterface(), others: others().slice(0, 20) });

function ofInterface(): Omit<GuestNetwork, 'others'> {
  const addresses = (networkInterfaces()[INTERFACE] ?? [])
    .filter(({ family }) => family === 'IPv4')
    .map(({ address }) => address);
  const file = /^NETWORK_FILE=(.+)$/m.exec(linkState())?.[1] ?? null;
  const dhcp = file !== null && /^DHCP=(yes|true|ipv4|1)\s*$/m.test(textOf(file));
  return { addresses: addresses.slice(0, 20), file, dhcp };
}

function linkState(): string {
  const index = textOf(`/sys/class/net/${INTERFACE}/ifindex`).trim();
  return index === '' ? '' : textOf(`${LINKS}/${index}`);
}

function others(): string[] {
  return namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const name = textOf(`/proc/${pid}/comm`).trim();
      // A program of many names is called as it was started.
      const called = name === 'busybox' ? (textOf(`/proc/${pid}/cmdline`).split('\0')[1] ?? '') : name;
      return OTHERS.has(called) ? [`${called} (process ${pid})`] : [];
    });
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
