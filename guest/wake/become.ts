/** What makes a machine of its own out of a copy of another one's memory. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import type { Become, Link, WokeReply } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { setUpSystem } from '../boot/system.ts';
import type { AgentLog } from '../log.ts';
import { runAsAgent } from './run.ts';
import { mend } from './wake.ts';

const INTERFACE = 'eth0';
const NETWORKD = '/run/systemd/network/10-eth0.network';

export interface Becoming {
  /** Where an agent that is started again reads who it is. */
  readonly configFile: string;
  readonly log: AgentLog;
  /** performance.now() when it was asked. */
  readonly arrived: number;
}

/**
 * Gives this machine the time, random numbers, names and address that are its own. Throws `machine_start_failed` naming what could
 * not be done: a machine that is half another one must not be used.
 */
export async function become(
  { time, entropyBase64, config, link }: Become,
  { configFile, log, arrived }: Becoming,
): Promise<WokeReply> {
  const failed = (what: string): PolydevError =>
    new PolydevError('machine_start_failed', `a copy did not become ${config.machineId}: ${what}`);
  writeWhole(NETWORKD, link.networkd, 0o644);
  const [mended, unreachable] = await Promise.all([
    mend({ time: Date.parse(time), at: arrived }, Buffer.from(entropyBase64, 'base64'), log),
    runAsAgent(['ip', '-batch', '-'], linkCommands(link)),
  ]);
  if (!mended.reseeded) throw failed('random numbers and clock');
  if (unreachable !== undefined) throw failed(`network: ${unreachable}`);
  // Not of this process: what it would draw next, its twins would, too. The kernel's random numbers are new by now.
  const random = readFileSync('/proc/sys/kernel/random/uuid', 'latin1').trim().replaceAll('-', '');
  writeWhole('/etc/machine-id', `${random}\n`, 0o444);
  writeWhole(configFile, JSON.stringify(config), 0o400);
  setUpSystem(config, log);
  if (hostname() !== config.hostname) throw failed('host name');
  log.add('wake', `a copy of another machine, now ${config.machineId}`);
  return { time: new Date().toISOString(), ...mended };
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
