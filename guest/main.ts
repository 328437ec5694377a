/**
 * guest/: the agent inside every machine. Answers its API, sets the machine up, runs the person's desktop, logins,
 * commands and terminals. Imports only protocol/, providers/, node: and the pseudo terminal, as it is one bundled file.
 *
 *   node main.mjs [config file] [state directory] [home of the person]
 */
import './zod.ts';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import path from 'node:path';
import { PolydevError } from '../protocol/errors.ts';
import { AGENT_PORT, GuestConfig } from '../protocol/machine.ts';
import { providers } from '../providers/index.ts';
import { agentRoutes } from './api.ts';
import { BootChecklist } from './boot/checklist.ts';
import { checkProviders } from './boot/cli.ts';
import { CA_BUNDLE, setUpSystem } from './boot/system.ts';
import { type SerialChannel, serveSerial } from './channel/serial.ts';
import { Desktop } from './desktop/desktop.ts';
import { AgentLog } from './log.ts';
import { Logins } from './login/logins.ts';
import { imagePerson, makePersonDirectory, type Person } from './person.ts';
import { Processes } from './processes.ts';
import { createAgentServer } from './server/server.ts';
import { Terminals } from './terminal/terminals.ts';

const CONFIG_FILE = '/run/polydev/config.json';
const STATE_DIRECTORY = '/run/polydev-agent';

async function main(): Promise<void> {
  const [configFile = CONFIG_FILE, directory = STATE_DIRECTORY, home] = process.argv.slice(2);
  const config = GuestConfig.parse(JSON.parse(readFileSync(configFile, 'utf8')));
  const log = new AgentLog();
  const checklist = new BootChecklist(config.kind);
  const person = imagePerson(home);
  const processes = new Processes(person);
  if (config.ca !== undefined) processes.surroundings.caBundle = CA_BUNDLE;
  const desktop =
    config.kind === 'browser'
      ? new Desktop({
          processes,
          log,
          checklist,
          display: config.display,
          directory,
          slowdown: config.slowdown,
        })
      : undefined;
  const terminals = new Terminals(processes, log);
  const logins = new Logins(path.join(directory, 'login'), {
    processes,
    log,
    open: desktop === undefined ? undefined : (url) => desktop.open(url),
    slowdown: config.slowdown,
  });
  const version = agentVersion();
  const token = { hash: config.agentTokenHash };
  let serial: SerialChannel | undefined;
  const routes = agentRoutes({
    config,
    configFile,
    token,
    remark: (mark) => serial?.remark(mark),
    ownKernel: !('fd' in config.listen),
    version,
    log,
    checklist,
    processes,
    providers,
    logins,
    terminals,
    desktop,
  });

  const stopping = new AbortController();
  const create = () => createAgentServer(routes, token, log);
  const { servers, ...channel } = await listen(config, log, create, stopping.signal);
  serial = channel.serial;
  checklist.stamp('init', performance.timeOrigin);
  checklist.stamp('agent');
  log.add(
    'agent',
    `version ${version}, ${config.machineId}, listening after ${Math.round(performance.now())} ms`,
  );

  const stop = async (signal: NodeJS.Signals) => {
    log.add('agent', `${signal}: stopping`);
    for (const server of servers) server.close();
    stopping.abort();
    desktop?.stop();
    terminals.closeAll();
    await processes.stopAll(2_000);
    process.exit(0);
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  process.on('unhandledRejection', (reason) => {
    log.add('agent', `unhandled: ${reason instanceof Error ? reason.stack : String(reason)}`);
  });

  boot({ config, log, checklist, person, processes, desktop, directory });
}

/** Listens where the host expects it, which must work, and on the guest's own port, which may not. */
async function listen(
  config: GuestConfig,
  log: AgentLog,
  create: () => Server,
  stopping: AbortSignal,
): Promise<{ servers: Server[]; serial: SerialChannel | undefined }> {
  const first = create();
  const where = config.listen;
  let serial: SerialChannel | undefined;
  if ('serial' in where) {
    serial = serveSerial(where, first, log, stopping);
  } else {
    // Left by an agent that was killed.
    if ('path' in where) rmSync(where.path, { force: true });
    await new Promise<void>((resolve, reject) => {
      first.once('error', reject);
      first.listen('port' in where ? { ...where, host: '0.0.0.0' } : where, () => {
        first.off('error', reject);
        resolve();
      });
    });
  }
  const servers = [first];
  if (!('port' in where)) {
    const second = create();
    second.once('error', (error) => log.add('agent', `port ${AGENT_PORT}: ${error.message}`));
    second.listen({ port: AGENT_PORT, host: '0.0.0.0' });
    servers.push(second);
  }
  return { servers, serial };
}

interface BootParts {
  readonly config: GuestConfig;
  readonly log: AgentLog;
  readonly checklist: BootChecklist;
  readonly person: Person;
  readonly processes: Processes;
  readonly desktop: Desktop | undefined;
  readonly directory: string;
}

/** Everything after the agent answers. Xvnc starts first: the rest is done while it comes up. */
function boot({ config, log, checklist, person, processes, desktop, directory }: BootParts): void {
  try {
    // A pseudo terminal changes ids without dropping the agent's own groups, so there must be none.
    if (person.ids !== undefined) process.setgroups?.([]);
  } catch (error) {
    log.add('boot', `groups: ${error instanceof Error ? error.message : String(error)}`);
  }
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    makePersonDirectory(person, person.home);
    const runtimeDirectory = path.join(directory, 'person');
    makePersonDirectory(person, runtimeDirectory);
    processes.surroundings.runtimeDirectory = runtimeDirectory;
    const ready = Promise.withResolvers<void>();
    void desktop?.run(ready.promise);
    if (person.ids !== undefined) setUpSystem(config, log);
    ready.resolve();
    checkProviders(Object.values(providers), processes.env().PATH ?? person.path);
    checklist.stamp('provider');
  } catch (thrown) {
    const error = PolydevError.from(thrown);
    log.add('boot', error.message);
    checklist.fail(error);
  }
}

/** The image writes its agent's version beside the bundle. */
function agentVersion(): string {
  try {
    const file = path.join(import.meta.dirname, 'version.json');
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof value === 'object' && value !== null && 'agent' in value) return String(value.agent);
  } catch {
    // Run from the checkout.
  }
  return 'development';
}

main().catch((error: unknown) => {
  process.stderr.write(`agent: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
