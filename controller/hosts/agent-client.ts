/** The client of protocol/agent.ts: HTTP to the agent of one machine, each request over a freshly dialled channel. */
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import {
  AgentClock,
  AgentHealth,
  BootEvent,
  CredentialStatus,
  ExecEvent,
  type ExecRequest,
  type LoginStart,
  LoginStatus,
  type TerminalSize,
  type TerminalStart,
  type Woke,
  WokeReply,
} from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId, ProviderId } from '../../protocol/ids.ts';
import type { HostClient } from './host-client.ts';
import { type Exchange, exchange, parseJson, readAll, upgrade } from './http.ts';
import { readLines } from './ndjson.ts';

/** What the vault alone uses to move plaintext: bodies are Buffers that the caller overwrites. */
export interface CredentialChannel {
  readonly machineId: MachineId;
  /** `CredentialBundle` as JSON bytes. */
  fetchCredentialFiles(provider: ProviderId, signal?: AbortSignal): Promise<Buffer>;
  /** @param bundle `CredentialBundle` as JSON bytes */
  putCredentialFiles(provider: ProviderId, bundle: Buffer, signal?: AbortSignal): Promise<CredentialStatus>;
}

export interface AgentClient extends CredentialChannel {
  health(signal?: AbortSignal): Promise<AgentHealth>;
  woke(woke: Woke, signal?: AbortSignal): Promise<WokeReply>;
  clock(signal?: AbortSignal): Promise<AgentClock>;
  /** Those so far, then live ones; ends after `ready` or `failed`. */
  boot(signal?: AbortSignal): AsyncGenerator<BootEvent, void, undefined>;
  startLogin(start: LoginStart, signal?: AbortSignal): Promise<LoginStatus>;
  /** The current status, then every change; ends when final. */
  loginEvents(signal?: AbortSignal): AsyncGenerator<LoginStatus, void, undefined>;
  loginInput(text: string, signal?: AbortSignal): Promise<LoginStatus>;
  cancelLogin(signal?: AbortSignal): Promise<LoginStatus>;
  credentialStatus(provider: ProviderId, signal?: AbortSignal): Promise<CredentialStatus>;
  deleteCredential(provider: ProviderId, signal?: AbortSignal): Promise<void>;
  exec(request: ExecRequest, signal?: AbortSignal): AsyncGenerator<ExecEvent, void, undefined>;
  createTerminal(start: TerminalStart, signal?: AbortSignal): Promise<string>;
  resizeTerminal(id: string, size: TerminalSize, signal?: AbortSignal): Promise<void>;
  deleteTerminal(id: string, signal?: AbortSignal): Promise<void>;
  terminalStream(id: string, signal?: AbortSignal): Promise<Duplex>;
  desktop(signal?: AbortSignal): Promise<Duplex>;
  log(signal?: AbortSignal): Promise<string>;
  /** Of a virtual machine: the last lines of its systemd's journal. Elsewhere `not_found`. */
  journal(signal?: AbortSignal): Promise<string>;
}

/**
 * Every call may throw what the agent reports, machine_unreachable when it does not answer and agent_unauthorized when
 * it refuses the token.
 * @param token the machine's agent token, from the vault
 * @param patience how many times longer than usual its answers may take; for tests on an emulated computer
 */
export function createAgentClient(
  host: Pick<HostClient, 'dial'>,
  machineId: MachineId,
  token: string,
  patience = 1,
): AgentClient {
  const options = (
    method: Exchange['method'],
    path: string,
    extra: { body?: Buffer; deadlineMs?: number; signal?: AbortSignal | undefined },
  ): Exchange => ({
    over: { connect: (signal) => host.dial(machineId, signal) },
    method,
    path,
    headers: {
      authorization: `Bearer ${token}`,
      ...(extra.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    deadlineMs: (extra.deadlineMs ?? 10_000) * patience,
    signal: extra.signal,
    unreachable: 'machine_unreachable',
    ...(extra.body === undefined ? {} : { body: extra.body }),
  });
  const named = (error: unknown): unknown =>
    error instanceof PolydevError && (error.code === 'unauthenticated' || error.code === 'forbidden')
      ? new PolydevError('agent_unauthorized', `the agent of ${machineId} refused its token`, {
          cause: error,
        })
      : error;
  const open = async (...args: Parameters<typeof options>) => {
    try {
      return await exchange(options(...args));
    } catch (error) {
      throw named(error);
    }
  };
  const openStream = async (path: string, signal: AbortSignal | undefined) => {
    try {
      return await upgrade(options('GET', path, { signal }));
    } catch (error) {
      throw named(error);
    }
  };
  const call = async (...args: Parameters<typeof options>) => readAll(await open(...args));
  const json = async <T>(schema: z.ZodType<T>, reply: Promise<Buffer>): Promise<T> => {
    const parsed = schema.safeParse(parseJson(await reply));
    if (parsed.success) return parsed.data;
    const fields = parsed.error.issues.map((issue) => issue.path.join('.')).join(', ');
    throw new PolydevError('machine_unreachable', `unexpected reply of the agent of ${machineId}: ${fields}`);
  };
  const body = (value: unknown) => Buffer.from(JSON.stringify(value));
  async function* lines<T>(schema: z.ZodType<T>, ...args: Parameters<typeof options>) {
    yield* readLines(await open(...args), schema, args[2].signal);
  }

  return {
    machineId,
    woke: (woke, signal) =>
      json(WokeReply, call('POST', '/v1/woke', { body: body(woke), deadlineMs: 30_000, signal })),
    clock: (signal) => json(AgentClock, call('GET', '/v1/clock', { signal })),
    health: (signal) => json(AgentHealth, call('GET', '/health', { signal })),
    boot: (signal) => lines(BootEvent, 'GET', '/v1/boot', { signal }),
    // The agent answers at once or after the CLI has shown its URL; both are allowed.
    startLogin: (start, signal) =>
      json(LoginStatus, call('POST', '/v1/login', { body: body(start), deadlineMs: 60_000, signal })),
    loginEvents: (signal) => lines(LoginStatus, 'GET', '/v1/login/events', { signal }),
    loginInput: (text, signal) =>
      json(LoginStatus, call('POST', '/v1/login/input', { body: body({ text }), signal })),
    cancelLogin: (signal) => json(LoginStatus, call('DELETE', '/v1/login', { signal })),
    credentialStatus: (provider, signal) =>
      json(CredentialStatus, call('GET', `/v1/credentials/${provider}`, { signal })),
    fetchCredentialFiles: (provider, signal) => call('GET', `/v1/credentials/${provider}/files`, { signal }),
    putCredentialFiles: (provider, bundle, signal) =>
      json(CredentialStatus, call('PUT', `/v1/credentials/${provider}`, { body: bundle, signal })),
    async deleteCredential(provider, signal) {
      await call('DELETE', `/v1/credentials/${provider}`, { signal });
    },
    exec: (request, signal) =>
      lines(ExecEvent, 'POST', '/v1/exec', { body: body(request), deadlineMs: 30_000, signal }),
    createTerminal: async (start, signal) =>
      (
        await json(
          z.object({ id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/) }),
          call('POST', '/v1/terminals', { body: body(start), signal }),
        )
      ).id,
    async resizeTerminal(id, size, signal) {
      await call('POST', `/v1/terminals/${id}/size`, { body: body(size), signal });
    },
    async deleteTerminal(id, signal) {
      await call('DELETE', `/v1/terminals/${id}`, { signal });
    },
    terminalStream: (id, signal) => openStream(`/v1/terminals/${id}/stream`, signal),
    desktop: (signal) => openStream('/v1/desktop/vnc', signal),
    log: async (signal) => (await call('GET', '/v1/log', { signal })).toString('utf8'),
    // An emulated guest takes seconds to read it.
    journal: async (signal) =>
      (await call('GET', '/v1/journal', { deadlineMs: 30_000, signal })).toString('utf8'),
  };
}
