/** What makes a machine of its own out of a copy of another one's memory. */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import type { Become, Link } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { setUpSystem } from '../boot/system.ts';
import type { AgentLog } from '../log.ts';
import { readInterfaceAgain } from '../network.ts';
import { Program } from './run.ts';
import { mend, mender } from './wake.ts';

const INTERFACE = 'eth0';
const NETWORKD = '/run/systemd/network/10-eth0.network';

const links = new Program('ip', '-batch', '-');

/** What a copy of this machine needs at once waits for it. */
export function prepareCopies(): void {
  mender.prepare();
  links.prepare();
}

/**
 * Gives this machine the names and the address that are its own, and the time and random numbers
 * unless it has them; `configFile`: where an agent that is started again reads who it is. Throws `machine_start_failed` naming what could not be done: a machine that is
 * half another one must not be used.
 */
export async function become(
  { config, link, wake }: Become,
  configFile: string,
  log: AgentLog,
): Promise<void> {
  const failed = (what: string): PolydevError =>
    new PolydevError('machine_start_failed', `a copy did not become ${config.machineId}: ${what}`);
  writeWhole(NETWORKD, link.networkd, 0o644);
  const [unreachable, mended] = await Promise.all([
    links.run(linkCommands(link), config.slowdown),
    wake === undefined
      ? undefined
      : mend(
          { time: Date.parse(wake.time), at: wake.uptimeMs },
          Buffer.from(wake.entropyBase64, 'base64'),
          log,
          config.slowdown,
        ),
  ]);
  if (unreachable !== undefined) throw failed(`network: ${unreachable}`);
  if (mended?.reseeded === false) throw failed('time and random numbers');
  readInterfaceAgain();
  // Not of this process: what it would draw next, its twins would, too. The kernel's random numbers are new by now.
  const random = readFileSync('/proc/sys/kernel/random/uuid', 'latin1').trim().replaceAll('-', '');
  writeWhole('/etc/machine-id', `${random}\n`, 0o444);
  writeWhole(configFile, JSON.stringify(config), 0o400);
  setUpSystem(config, log);
  if (hostname() !== config.hostname) throw failed('host name');
  log.add('wake', `a copy of another machine, now ${config.machineId}`);
}

/** For ip(8): what networkd would do with its file at a start. The new address comes first, as the last one's end takes all routes along. */
function linkCommands({ address, mac, gateway }: Link): string {
  const old = networkInterfaces()[INTERFACE] ?? [];
  return [
    `link set dev ${INTERFACE} address ${mac}`,
    `addr replace ${address}/32 dev ${INTERFACE}`,
    `route replace ${gateway.address} dev ${INTERFACE} scope link`,
    `route replace default via ${gateway.address} dev ${INTERFACE} onlink`,
    `neigh replace ${gateway.address} lladdr ${gateway.mac} dev ${INTERFACE} nud permanent`,
    ...old
      .filter((each) => each.family === 'IPv4' && each.address !== address)
      .map((each) => `addr del ${each.cidr} dev ${INTERFACE}`),
    '',
  ].join('\n');
}

function writeWhole(file: string, text: string, mode: number): void {
  const draft = `${file}.new`;
  writeFileSync(draft, text, { mode });
  renameSync(draft, file);
}

/** The programs of the person, which were stopped before the machine was copied. */
export function stoppedPrograms(uid: number): number[] {
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid)) return [];
    try {
      // Not the folder's owner: those of programs that hide their memory belong to root.
      const owner = /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'latin1'))?.[1];
      return Number(owner) === uid ? [pid] : [];
    } catch {
      return []; // It has ended.
    }
  });
}

export function goOn(programs: readonly number[]): void {
  for (const pid of programs) {
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // It has ended.
    }
  }
}
