import { mkdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Display } from '../../protocol/machine.ts';
import type { AgentLog } from '../log.ts';
import { asPerson } from '../person.ts';
import { type Child, type Processes, readLines } from '../processes.ts';

/** Debian's launcher is a shell script that starts a dozen programs first; the flags it would add are below. */
const BINARY = '/usr/lib/chromium/chromium';

export interface BrowserSettings {
  readonly display: Display;
  /** How many times longer than usual programs may take. */
  readonly slowdown: number;
}

const profileOf = (home: string) => path.join(home, '.config/chromium');

function binary(): string {
  return statSync(BINARY, { throwIfNoEntry: false })?.isFile() === true ? BINARY : 'chromium';
}

/**
 * What Chromium does at its start beside showing a page: two pages for the suggestions of an address bar that nobody uses yet, and a
 * process kept for a page that may come. Without them it starts with less than half the work (measured: 0.7 s instead of 1.7 of
 * processor time), which an emulated processor takes 30 times as long for.
 */
const UNWANTED = ['WebUIOmniboxPopup', 'WebUIOmniboxAimPopup', 'SpareRendererForSitePerProcess'];

/** Chromium's own is 15 s. */
const CONNECTION_SECONDS = 90;

/**
 * Where programs run slower than usual: a process of Chromium that the busy browser has not answered 15 s after its start ends itself,
 * and is started anew, for ever (measured: no page after 4 minutes). The boot has its own deadline. Empty at usual speed.
 */
const patience = (slowdown: number): string[] =>
  slowdown > 1
    ? [
        `--ipc-connection-timeout=${Math.ceil(CONNECTION_SECONDS * slowdown)}`,
        '--disable-gpu-watchdog',
        '--disable-hang-monitor',
      ]
    : [];

/**
 * An ordinary browser of a person: its own sandbox is on, nothing can drive it from outside, nothing is hidden from the
 * pages. The flags only keep it from asking, updating and keeping secrets in a keyring that is not there.
 */
function flags(home: string, { display, slowdown }: BrowserSettings): string[] {
  return [
    `--user-data-dir=${profileOf(home)}`,
    '--no-first-run',
    '--no-default-browser-check',
    '--disable-component-update',
    '--disable-background-networking',
    '--disable-pings',
    // What Chromium's developers try out is on in a Chromium of Debian, and not in the browser that most people have.
    '--disable-field-trial-config',
    '--hide-crash-restore-bubble',
    '--password-store=basic',
    `--disable-features=${UNWANTED.join(',')}`,
    // There is no GPU: without this Chromium starts the process for it six times, sees it fail and ends up the same.
    '--disable-gpu',
    ...patience(slowdown),
    '--force-device-scale-factor=1',
    '--start-maximized',
    '--window-position=0,0',
    `--window-size=${display.width},${display.height}`,
    ...(sharedMemoryIsSmall() ? ['--disable-dev-shm-usage'] : []),
  ];
}

function sharedMemoryIsSmall(): boolean {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    return bavail * bsize < 256 * 1024 * 1024;
  } catch {
    return true;
  }
}

const environmentOf = () => ({
  CHROME_WRAPPER: '/usr/bin/chromium',
  CHROME_DESKTOP: 'chromium.desktop',
  // There is no session bus; without this Chromium tries to start one.
  DBUS_SESSION_BUS_ADDRESS: 'disabled:',
});

/** Complaints about services that a machine of ours has not got, and about a hand-over that ends early, as it should. */
const NOISE =
  /zygote.*Broken pipe|vkCreateInstance|dbus|UPower|vaapi|gpu_memory_buffer|GCM|gcm|Fontconfig|libva/;

/** Starts the browser on `page`. It runs until the person closes its last window, or it crashes. */
export function startChromium(
  processes: Processes,
  log: AgentLog,
  settings: BrowserSettings,
  page: string,
): Child {
  const { home } = processes.person;
  asPerson(processes.person, () => {
    mkdirSync(profileOf(home), { recursive: true, mode: 0o700 });
    // The lock names the host and the process of an earlier browser; with it this one would refuse to start.
    for (const name of ['SingletonLock', 'SingletonSocket', 'SingletonCookie']) {
      rmSync(path.join(profileOf(home), name), { force: true });
    }
  });
  const child = processes.start({
    argv: [binary(), ...flags(home, settings), page],
    env: environmentOf(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  readLines(child.process.stderr, (line) => {
    if (!NOISE.test(line)) log.add('chromium', line);
  });
  return child;
}

/** Hands `url` to the browser that already runs, as starting it a second time does on every desktop. */
export function handOver(processes: Processes, log: AgentLog, settings: BrowserSettings, url: URL): Child {
  const child = processes.start({
    argv: [binary(), ...flags(processes.person.home, settings), url.href],
    env: environmentOf(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  readLines(child.process.stderr, (line) => {
    if (!NOISE.test(line)) log.add('chromium-open', line);
  });
  return child;
}
