/**
 * hosts/: how the controller reaches the host service and, through it, the agent in each machine.
 *
 * This file is the client of protocol/host.ts over the host service's unix socket.
 */
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { type Diagnosis, type DiagnosisQuestion, DiagnosisReply } from '../../protocol/diagnoses.ts';
import { DoctorReport } from '../../protocol/doctor.ts';
import { PolydevError } from '../../protocol/errors.ts';
import {
  EvidenceFile,
  HostHealth,
  HostMachine,
  ImageSummary,
  type LookRequest,
  UPLOADED_EVIDENCE,
  type UploadedEvidence,
} from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { AGENT_PORT, ExitReport, type MachineSpec } from '../../protocol/machine.ts';
import { exchange, parseJson, readAll, upgrade } from './http.ts';

/** A virtual machine's memory goes to disk, and comes from it. */
const SLEEP_DEADLINE_MS = 240_000;

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
  /** Puts the guest to sleep with all that runs in it; idempotent. Its channels end. */
  hibernate(id: MachineId, signal?: AbortSignal): Promise<HostMachine>;
  /** Lets it go on; idempotent. The guest must then be told (wake.ts). Throws machine_resume_failed: it is stopped then. */
  resume(id: MachineId, signal?: AbortSignal): Promise<HostMachine>;
  /** Idempotent. */
  destroy(id: MachineId, signal?: AbortSignal): Promise<void>;
  /** A raw channel to a port in the machine. */
  dial(id: MachineId, signal?: AbortSignal, port?: number): Promise<Duplex>;
  console(id: MachineId, signal?: AbortSignal): Promise<string>;
  evidence(id: MachineId, signal?: AbortSignal): Promise<EvidenceFile[]>;
  evidenceFile(id: MachineId, name: string, signal?: AbortSignal): Promise<Buffer>;
  /** Cut to the size that the host keeps: the end of a text; a picture that is too large is refused. */
  addEvidence(id: MachineId, name: UploadedEvidence, content: Buffer, signal?: AbortSignal): Promise<void>;
  /** What the host knows of one of its images. Throws `not_found`. */
  image(image: string, signal?: AbortSignal): Promise<ImageSummary>;
  /** Has the host take a light look at a machine that is ready; null: nothing wrong is seen. Throws `not_found`, `conflict`. */
  look(id: MachineId, question: LookRequest, signal?: AbortSignal): Promise<Diagnosis | null>;
  /** Has the host try everything that a machine needs: seconds. */
  doctor(signal?: AbortSignal): Promise<DoctorReport>;
  /** Has the host check and name what is wrong with a machine; null: nothing that it sees. */
  diagnose(id: MachineId, question: DiagnosisQuestion, signal?: AbortSignal): Promise<Diagnosis | null>;
}

/**
 * Every call may throw what the host service reports, and host_unreachable when it does not answer.
 * @param socketPath of the host service
 * @param patience how many times longer than usual its answers may take; for tests on an emulated computer
 */
export function createHostClient(socketPath: string, id = 'local', patience = 1): HostClient {
  const call = async (
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    options: { body?: unknown; bytes?: Buffer; deadlineMs?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<Buffer> =>
    readAll(
      await exchange({
        over: { socketPath },
        method,
        path,
        deadlineMs: (options.deadlineMs ?? 10_000) * patience,
        signal: options.signal,
        unreachable: 'host_unreachable',
        ...(options.bytes === undefined
          ? {}
          : { body: options.bytes, headers: { 'content-type': 'application/octet-stream' } }),
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
    hibernate: (machineId, signal) =>
      json(
        HostMachine,
        call('POST', `${machine(machineId)}/hibernate`, { deadlineMs: SLEEP_DEADLINE_MS, signal }),
      ),
    resume: (machineId, signal) =>
      json(
        HostMachine,
        call('POST', `${machine(machineId)}/resume`, { deadlineMs: SLEEP_DEADLINE_MS, signal }),
      ),
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
    evidenceFile: (machineId, name, signal) =>
      call('GET', `/v1/evidence/${machineId}/${encodeURIComponent(name)}`, { signal }),
    async addEvidence(machineId, name, content, signal) {
      const body = name.endsWith('.log') ? content.subarray(-UPLOADED_EVIDENCE[name]) : content;
      await call('PUT', `/v1/evidence/${machineId}/${name}`, { bytes: body, signal });
    },
    image: (image, signal) => json(ImageSummary, call('GET', `/v1/images/${image}`, { signal })),
    look: async (machineId, question, signal) =>
      (
        await json(
          DiagnosisReply,
          call('POST', `${machine(machineId)}/look`, { body: question, deadlineMs: 25_000, signal }),
        )
      ).diagnosis,
    doctor: (signal) => json(DoctorReport, call('GET', '/v1/doctor', { deadlineMs: 150_000, signal })),
    diagnose: async (machineId, question, signal) =>
      (
        await json(
          DiagnosisReply,
          call('POST', `/v1/evidence/${machineId}/diagnosis`, { body: question, deadlineMs: 25_000, signal }),
        )
      ).diagnosis,
  };
}
