/**
 * The host service's API: HTTP/1.1 with JSON over a unix socket. Errors are `{error: ErrorReport}`.
 *
 *   GET    /v1/health                       HostHealth
 *   GET    /v1/machines                     {machines: HostMachine[]}
 *   PUT    /v1/machines/:id     MachineSpec HostMachine; idempotent by id; returns once the guest's first process runs
 *   GET    /v1/machines/:id                 HostMachine
 *   GET    /v1/machines/:id/exit?wait=SEC   {exit: ExitReport | null}; long poll, at most 60 s
 *   POST   /v1/machines/:id/stop            HostMachine; the private disk stays
 *   POST   /v1/machines/:id/hibernate       HostMachine; the guest sleeps with all that runs in it; its channels end
 *   POST   /v1/machines/:id/resume          HostMachine; it goes on where it was (then tell the agent: POST /v1/woke)
 *   DELETE /v1/machines/:id                 204; idempotent; the evidence stays
 *   GET    /v1/machines/:id/dial?port=8080  Upgrade: tcp -> 101, then the raw bytes of a channel to the guest
 *   GET    /v1/machines/:id/console         text/plain
 *   GET    /v1/evidence/:id                 {files: EvidenceFile[]}; also after the machine is gone
 *   GET    /v1/evidence/:id/:name           text/plain, application/json or image/png
 *   PUT    /v1/evidence/:id/:name           204; the raw bytes of a file of UPLOADED_EVIDENCE, as application/octet-stream
 *   POST   /v1/evidence/:id/diagnosis   DiagnosisRequest  DiagnosisReply; checks facts while the machine is here
 *   POST   /v1/machines/:id/look        LookRequest       DiagnosisReply; a light look at a machine that is ready
 *   GET    /v1/images/:id                   ImageSummary
 *   GET    /v1/doctor                       DoctorReport; tries everything, seconds; one at a time
 */
import { z } from 'zod';
import { GuestNetwork } from './agent.ts';
import { ErrorReport } from './errors.ts';
import { ImageId, MachineId } from './ids.ts';
import { ExitReport, MachineKind, Realm, Stamp } from './machine.ts';

export const DriverName = z.enum(['firecracker', 'qemu', 'namespace']);
export type DriverName = z.infer<typeof DriverName>;

export const HostMachine = z.object({
  id: MachineId,
  kind: MachineKind,
  realm: Realm,
  state: z.enum(['running', 'hibernated', 'stopped', 'exited']),
  driver: DriverName,
  /** How it hibernates: with its memory on disk, or frozen in memory; null: it cannot. */
  sleep: z.enum(['disk', 'frozen']).nullable(),
  /** How many times the usual deadlines of work inside this machine are; absent: 1. Software emulation is slow. */
  slowdown: z.number().min(1).optional(),
  image: ImageId,
  address: z.string().nullable(),
  stamps: z.array(Stamp),
  exit: ExitReport.nullable(),
  /** It began as a copy of one that had booted: its agent stamped at once what the other one had reached. Absent: it booted. */
  copied: z.boolean().optional(),
});
export type HostMachine = z.infer<typeof HostMachine>;

export const HostHealth = z.object({
  ok: z.boolean(),
  version: z.string(),
  driver: DriverName,
  image: ImageId.nullable(),
  machines: z.number().int(),
  memoryMiB: z.object({ total: z.number(), available: z.number() }),
  diskMiB: z.object({ total: z.number(), available: z.number() }),
  /** The sizes of all private disks together, and how much that may be: sparse files take space only as they are written. */
  promisedDiskMiB: z.object({ used: z.number(), allowed: z.number() }),
  /** What is kept of machines that are gone, and the bounds. */
  evidence: z.object({
    machines: z.number().int(),
    mib: z.number(),
    maxMachines: z.number().int(),
    maxMib: z.number(),
  }),
  /** Processes that want to run, over the last minute, and processors. */
  load: z.object({ one: z.number(), cpus: z.number().int() }),
  /** Addresses for machines. */
  addresses: z.object({ used: z.number().int(), size: z.number().int() }),
  /** Kinds of machines that start as copies of one that has booted; absent: none does. */
  templates: z.number().int().optional(),
  /** Machines that an earlier host service left: those that ran on, and those that had ended. */
  recovered: z.object({ adopted: z.number().int(), ended: z.number().int() }),
  /** Named reasons why machines cannot start now; empty when they can. */
  problems: z.array(z.string()),
});
export type HostHealth = z.infer<typeof HostHealth>;

/** What the controller knows of a machine when it asks for a look at it. */
export const LookRequest = z.strictObject({
  /** Why its agent does not answer as it should; null: it does. */
  error: ErrorReport.nullable(),
  agentVersion: z.string().max(200).nullable(),
  /** As the agent's /health says. */
  guestNetwork: GuestNetwork.nullable().optional(),
});
export type LookRequest = z.infer<typeof LookRequest>;

/** `agentVersion`: the one that the image was verified with; null: its manifest names none. */
export const ImageSummary = z.object({ id: ImageId, agentVersion: z.string().nullable() });
export type ImageSummary = z.infer<typeof ImageSummary>;

export const EvidenceFile = z.object({ name: z.string(), bytes: z.number().int(), modified: z.string() });
export type EvidenceFile = z.infer<typeof EvidenceFile>;

/** What the controller may add to a machine's evidence, and the bytes that are kept of it at most. */
export const UPLOADED_EVIDENCE = {
  'agent.log': 1_048_576,
  'journal.log': 1_048_576,
  'timeline.json': 262_144,
  'desktop.png': 4_194_304,
} as const satisfies Record<string, number>;
export type UploadedEvidence = keyof typeof UPLOADED_EVIDENCE;
