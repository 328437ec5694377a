/** The agent's calls, as `protocol/agent.ts` lists them, put on routes. */
import { z } from 'zod';
import {
  type AgentClock,
  type AgentHealth,
  Become,
  CredentialBundle,
  ExecRequest,
  LoginStart,
  TerminalSize,
  TerminalStart,
  Woke,
  type WokeReply,
} from '../protocol/agent.ts';
import { PolydevError } from '../protocol/errors.ts';
import { ProviderId } from '../protocol/ids.ts';
import type { GuestConfig } from '../protocol/machine.ts';
import type { Provider } from '../providers/provider.ts';
import type { BootChecklist } from './boot/checklist.ts';
import {
  credentialBundle,
  credentialStatus,
  deleteCredential,
  installCredential,
} from './credentials/credentials.ts';
import type { Desktop } from './desktop/desktop.ts';
import { runExec } from './exec/exec.ts';
import { readJournal } from './journal.ts';
import type { AgentLog } from './log.ts';
import type { Logins } from './login/logins.ts';
import { guestNetwork } from './network.ts';
import type { Processes } from './processes.ts';
import { readBody } from './server/body.ts';
import { join } from './server/join.ts';
import { sendEvents } from './server/ndjson.ts';
import { type Call, HANDLED, type Handler, Router, type UpgradeHandler } from './server/router.ts';
import type { AgentToken, Routes } from './server/server.ts';
import type { Terminals } from './terminal/terminals.ts';
import { become, goOn, prepareCopies, stoppedPrograms } from './wake/become.ts';
import { first } from './wake/priority.ts';
import { mend, monotonicMs } from './wake/wake.ts';

export interface Parts {
  /** Who this machine is; a copy of another one learns it later. */
  readonly config: GuestConfig;
  /** Where that is written down. */
  readonly configFile: string;
  readonly token: AgentToken;
  /** Gives the channel another mark, where it has one. */
  readonly remark: (mark: string) => void;
  /** A virtual machine: its clock and random numbers are its own. */
  readonly ownKernel: boolean;
  readonly version: string;
  readonly log: AgentLog;
  readonly checklist: BootChecklist;
  readonly processes: Processes;
  readonly providers: Readonly<Record<ProviderId, Provider>>;
  readonly logins: Logins;
  readonly terminals: Terminals;
  readonly desktop: Desktop | undefined;
}

const LoginInput = z.strictObject({ text: z.string().min(1).max(8_192) });

/** Every route of the agent over its parts. */
export function agentRoutes(parts: Parts): Routes {
  const { checklist, log, logins, processes, providers, terminals } = parts;
  const { person } = processes;
  const calls = new Router<Handler>();
  const upgrades = new Router<UpgradeHandler>();

  const providerOf = (call: Call): Provider => {
    const id = ProviderId.safeParse(call.params.provider);
    if (!id.success) throw new PolydevError('not_found', 'there is no such provider');
    return providers[id.data];
  };

  const health = (): AgentHealth => {
    const { kind, machineId } = parts.config;
    return {
      version: parts.version,
      machineId,
      kind,
      uptimeMs: Math.round(performance.now()),
      stamps: checklist.stamps,
      ready: checklist.ready,
      failure: checklist.failure?.toReport() ?? null,
      ...(parts.ownKernel ? { network: guestNetwork() } : {}),
    };
  };
  calls.add('GET', '/health', health);
  calls.add('GET', '/v1/boot', async (call, response) => {
    await sendEvents(response, call.signal, checklist.events(call.signal));
    return HANDLED;
  });
  calls.add('GET', '/v1/log', (_call, response) => {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(log.text());
    return HANDLED;
  });
  calls.add('GET', '/v1/journal', async (call, response) => {
    if (!parts.ownKernel) throw new PolydevError('not_found', 'there is no systemd in this machine');
    const text = await readJournal(call.signal);
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(text);
    return HANDLED;
  });

  calls.add('POST', '/v1/woke', async (call): Promise<WokeReply> => {
    const arrived = monotonicMs();
    const {
      time,
      uptimeMs = arrived,
      entropyBase64,
      agentTokenHash,
      prepare,
    } = await readBody(call.request, Woke);
    if (agentTokenHash !== undefined) parts.token.hash = agentTokenHash;
    if (!parts.ownKernel) {
      const now = Date.now();
      const aheadMs = now - (Date.parse(time) + monotonicMs() - uptimeMs);
      return { time: new Date(now).toISOString(), aheadMs, clockSet: false, reseeded: false };
    }
    const mended = await mend(
      { time: Date.parse(time), at: uptimeMs },
      Buffer.from(entropyBase64, 'base64'),
      log,
      parts.config.slowdown,
    );
    if (prepare === true) prepareCopies();
    return { time: new Date().toISOString(), ...mended };
  });
  const clock = (): AgentClock => ({ uptimeMs: monotonicMs() });
  calls.add('GET', '/v1/clock', clock);
  calls.add('POST', '/v1/become', async (call, response): Promise<AgentClock> => {
    const asked = await readBody(call.request, Become);
    if (!parts.ownKernel)
      throw new PolydevError('conflict', 'only a virtual machine can be a copy of another one');
    const { ids } = person;
    const stopped = await first(async () => {
      await become(asked, parts.configFile, log);
      return ids === undefined ? [] : stoppedPrograms(ids.uid);
    });
    const { config } = asked;
    Object.assign(parts.config, config);
    parts.token.hash = config.agentTokenHash;
    if ('mark' in config.listen) parts.remark(config.listen.mark);
    checklist.restamp();
    // Afterwards: they take the processor from whoever waits for the answer.
    if (response.closed) goOn(stopped);
    else response.once('close', () => goOn(stopped));
    return clock();
  });

  calls.add('POST', '/v1/login', async (call) => {
    const start = await readBody(call.request, LoginStart);
    return logins.start(start, providers[start.provider]).status;
  });
  calls.add('GET', '/v1/login', () => logins.current.status);
  calls.add('GET', '/v1/login/events', async (call, response) => {
    const events = logins.current.events(call.signal);
    await sendEvents(response, call.signal, events);
    return HANDLED;
  });
  calls.add('POST', '/v1/login/input', async (call) => {
    const { text } = await readBody(call.request, LoginInput);
    const login = logins.current;
    await login.input(text);
    return login.status;
  });
  calls.add('DELETE', '/v1/login', async () => {
    const login = logins.current;
    await login.cancel();
    return login.status;
  });

  calls.add('GET', '/v1/credentials/:provider', (call) => credentialStatus(person, providerOf(call)));
  calls.add('GET', '/v1/credentials/:provider/files', (call) => credentialBundle(person, providerOf(call)));
  calls.add('PUT', '/v1/credentials/:provider', async (call) => {
    const provider = providerOf(call);
    return installCredential(person, provider, await readBody(call.request, CredentialBundle));
  });
  calls.add('DELETE', '/v1/credentials/:provider', (call) => deleteCredential(person, providerOf(call)));

  calls.add('POST', '/v1/exec', async (call, response) => {
    await runExec(processes, await readBody(call.request, ExecRequest), response, call.signal);
    return HANDLED;
  });

  calls.add('POST', '/v1/terminals', async (call) => ({
    id: await terminals.start(await readBody(call.request, TerminalStart)),
  }));
  calls.add('POST', '/v1/terminals/:id/size', async (call) => {
    terminals.get(call.params.id).resize(await readBody(call.request, TerminalSize));
  });
  calls.add('DELETE', '/v1/terminals/:id', (call) => terminals.get(call.params.id).close());
  upgrades.add('GET', '/v1/terminals/:id/stream', (call, accept) => {
    const terminal = terminals.get(call.params.id);
    terminal.attach(accept());
  });
  upgrades.add('GET', '/v1/desktop/vnc', async (_call, accept) => {
    if (parts.desktop === undefined) throw new PolydevError('not_found', 'this machine has no desktop');
    const rfb = await parts.desktop.connect();
    join(accept(), rfb);
  });
  return { calls, upgrades };
}
