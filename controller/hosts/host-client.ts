/**
 * hosts/: how the controller reaches the host service and, through it, the agent in each machine.
 *
 * This file is the client of protocol/host.ts over the host service's unix socket.
 */
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { EvidenceFile, HostHealth, HostMachine } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { AGENT_PORT, ExitReport, type MachineSpec } from '../../protocol/machine.ts';
import { exchange, parseJson, readAll, upgrade } from './http.ts';

export interface HostClient {
  /** The name under which the store knows this host. */
  readonly id: string;
  health(signal?: AbortSignal): Promise<HostHealth>;
  list(signal?: AbortSignal): Promise<HostMachine[]>;
  /** Idempotent by the id in the specification. */
  put(spec: MachineSpec, signal?: AbortSignal): Promise<HostMachine>;
  /** Undefined when the host does not know the machine. */
  get(id: MachineId, signal?: AbortSignal): Promise<HostMachine | undefined>;
  /** Waits at most `waitSeconds` (up to 60) for the end of the machine; null while it runs. */
  exit(id: MachineId, waitSeconds: number, signal?: AbortSignal): Promise<ExitReport | null>;
  stop(id: MachineId, signal?: AbortSignal): Promise<HostMachine>;
  /** Idempotent. */
  destroy(id: MachineId, signal?: AbortSignal): Promise<void>;
  /** A raw channel to a port in the machine. */
  dial(id: MachineId, signal?: AbortSignal, port?: number): Promise<Duplex>;
  console(id: MachineId, signal?: AbortSignal): Promise<string>;
  evidence(id: MachineId, signal?: AbortSignal): Promise<EvidenceFile[]>;
  evidenceFile(id: MachineId, name: string, signal?: AbortSignal): Promise<string>;
}

/**
 * Every call may throw what the host service reports, and host_unreachable when it does not answer.
 * @param socketPath of the host service
 */
export function createHostClient(socketPath: string, id = 'local'): HostClient {
  const call = async (
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    options: { body?: unknown; deadlineMs?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<Buffer> =>
    readAll(
      await exchange({
        over: { socketPath },
        method,
        path,
        deadlineMs: options.deadlineMs ?? 10_000,
        signal: options.signal,
        unreachable: 'host_unreachable',
        ...(options.body === undefined
          ? {}
          : {
              body: Buffer.from(JSON.stringify(options.body)),
              headers: { 'content-type': 'application/json' },
            }),
      }),
    );
  const json = async <T>(schema: z.ZodType<T>, reply: Promise<Buffer>): Promise<T> => {
    const parsed = schema.safeParse(parseJson(await reply));
    if (parsed.success) return parsed.data;
    throw new PolydevError('host_unreachable', 'the host service gave an unexpected reply', {
      cause: parsed.error,
    });
  };
  const machine = (machineId: MachineId) => `/v1/machines/${machineId}`;

  return {
    id,
    health: (signal) => json(HostHealth, call('GET', '/v1/health', { signal })),
    list: async (signal) =>
      (await json(z.object({ machines: z.array(HostMachine) }), call('GET', '/v1/machines', { signal })))
        .machines,
    put: (spec, signal) =>
      json(HostMachine, call('PUT', machine(spec.id), { body: spec, deadlineMs: 60_000, signal })),
    async get(machineId, signal) {
      try {
        return await json(HostMachine, call('GET', machine(machineId), { signal }));
      } catch (error) {
        if (error instanceof PolydevError && error.code === 'not_found') return undefined;
        throw error;
      }
    },
    exit: async (machineId, waitSeconds, signal) =>
      (
        await json(
          z.object({ exit: ExitReport.nullable() }),
          call('GET', `${machine(machineId)}/exit?wait=${waitSeconds}`, {
            deadlineMs: waitSeconds * 1000 + 10_000,
            signal,
          }),
        )
      ).exit,
    stop: (machineId, signal) =>
      json(HostMachine, call('POST', `${machine(machineId)}/stop`, { deadlineMs: 30_000, signal })),
    async destroy(machineId, signal) {
      try {
        await call('DELETE', machine(machineId), { deadlineMs: 60_000, signal });
      } catch (error) {
        if (!(error instanceof PolydevError && error.code === 'not_found')) throw error;
      }
    },
    dial: (machineId, signal, port = AGENT_PORT) =>
      upgrade({
        over: { socketPath },
        method: 'GET',
        path: `${machine(machineId)}/dial?port=${port}`,
        deadlineMs: 10_000,
        signal,
        unreachable: 'machine_unreachable',
      }),
    console: async (machineId, signal) =>
      (await call('GET', `${machine(machineId)}/console`, { signal })).toString('utf8'),
    evidence: async (machineId, signal) =>
      (
        await json(
          z.object({ files: z.array(EvidenceFile) }),
          call('GET', `/v1/evidence/${machineId}`, { signal }),
        )
      ).files,
    evidenceFile: async (machineId, name, signal) =>
      (await call('GET', `/v1/evidence/${machineId}/${encodeURIComponent(name)}`, { signal })).toString(
        'utf8',
      ),
  };
}
