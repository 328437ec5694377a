import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { newMachineId } from '../../protocol/ids.ts';
import type { GuestConfig } from '../../protocol/machine.ts';
import { providers } from '../../providers/index.ts';
import { agentRoutes } from '../api.ts';
import { BootChecklist } from '../boot/checklist.ts';
import { Logins } from '../login/logins.ts';
import { createAgentServer } from '../server/server.ts';
import { Terminals } from '../terminal/terminals.ts';
import type { Fixture } from './fixture.ts';

const TOKEN = 'the-token-of-this-test';

/** The agent's real routes and servers, of a CLI machine, on a loopback port. */
export async function startAgent(fixture: Fixture) {
  const { processes, log } = fixture;
  const checklist = new BootChecklist('cli');
  const terminals = new Terminals(processes, log);
  const config: GuestConfig = {
    version: 1,
    machineId: newMachineId(),
    kind: 'cli',
    realm: 'test',
    hostname: 'test',
    display: { width: 1280, height: 800 },
    agentTokenHash: createHash('sha256').update(TOKEN).digest('hex'),
    listen: { port: 0 },
  };
  const logins = new Logins(`${fixture.directory}/login`, { processes, log, open: undefined });
  const token = { hash: config.agentTokenHash };
  const ownKernel = false;
  const parts = {
    config,
    configFile: `${fixture.directory}/config.json`,
    token,
    remark: () => undefined,
    ownKernel,
    version: 'test',
    log,
    checklist,
    processes,
    providers,
    logins,
    terminals,
  };
  const routes = agentRoutes({ ...parts, desktop: undefined });
  const server = createAgentServer(routes, token, log);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const origin = `http://127.0.0.1:${port}`;
  const authorization = `Bearer ${TOKEN}`;

  return {
    origin,
    checklist,
    call: (method: string, path: string, body?: unknown, signal?: AbortSignal) =>
      fetch(`${origin}${path}`, {
        method,
        headers: { authorization },
        body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
        signal: signal ?? AbortSignal.timeout(20_000),
      }),
    /** Upgrades; resolves to the raw stream, or to the status when it was refused. */
    upgrade: (path: string, token = authorization) =>
      new Promise<Duplex | number>((resolve, reject) => {
        const asked = request(`${origin}${path}`, {
          headers: { authorization: token, connection: 'Upgrade', upgrade: 'tcp' },
        });
        asked.once('upgrade', (_response, socket, head) => {
          if (head.length > 0) socket.unshift(head);
          resolve(socket);
        });
        asked.once('response', (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        });
        asked.once('error', reject);
        asked.end();
      }),
    async [Symbol.asyncDispose]() {
      terminals.closeAll();
      server.closeAllConnections();
      server.close();
    },
  };
}
