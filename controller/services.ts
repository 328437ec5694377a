/**
 * controller/: the HTTP API, the durable workflows, the vault and the streams. Needs no root.
 *
 * This file is the seam between `api/` (who may call, how it travels) and what does the work. Implementations throw
 * PolydevError. Ownership is checked by the caller in `api/`, from the `userId` of what is returned.
 */
import type { Duplex } from 'node:stream';
import type { ExecEvent, ExecRequest, TerminalSize } from '../protocol/agent.ts';
import type { CleanUp, Credential, Host, Machine, Session, TimelineEvent } from '../protocol/api.ts';
import type { Diagnosis, DiagnosisName } from '../protocol/diagnoses.ts';
import type { DoctorReport } from '../protocol/doctor.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import type { EvidenceFile } from '../protocol/host.ts';
import type { CredentialId, MachineId, ProviderId, SessionId, UserId } from '../protocol/ids.ts';
import type { MachineState, SessionState } from '../protocol/lifecycles.ts';
import type { MachineKind, Realm } from '../protocol/machine.ts';
import type { Settings, SettingsPatch } from '../protocol/settings.ts';
import type { Meters } from './meters.ts';

export interface LoginRequest {
  readonly userId: UserId;
  readonly provider: ProviderId;
  readonly account: string;
  readonly realm: Realm;
  readonly expiresInSeconds: number;
  /** Absent: as the setting says. */
  readonly keepFailed?: boolean | undefined;
}

export interface Logins {
  start(request: LoginRequest): Promise<Session>;
  get(id: SessionId): Promise<Session | undefined>;
  /** Newest first, at most 200. */
  list(filter: { userId?: UserId }): Promise<Session[]>;
  input(id: SessionId, text: string): Promise<void>;
  /** Resolves once the cancellation is recorded; the machine goes within seconds. */
  cancel(id: SessionId): Promise<Session>;
  /** Events after `afterSeq`, then live ones, until the session has ended and its machine is gone, or the signal. */
  events(id: SessionId, afterSeq: number, signal: AbortSignal): AsyncIterable<TimelineEvent>;
}

export interface Machines {
  /** Newest first; machines that are gone are included for a while, at most 200. */
  list(filter: { userId?: UserId }): Promise<Machine[]>;
  get(id: MachineId): Promise<Machine | undefined>;
  console(id: MachineId): Promise<string>;
  evidence(id: MachineId): Promise<EvidenceFile[]>;
  evidenceFile(id: MachineId, name: string): Promise<Buffer>;
  /** What is wrong with it, by name and with proof; null: nothing that can be seen. */
  diagnosis(id: MachineId): Promise<Diagnosis | null>;
  start(id: MachineId): Promise<Machine>;
  /** Lets a CLI machine stand still with all that runs in it. Whatever needs it wakes it. */
  hibernate(id: MachineId): Promise<Machine>;
  resume(id: MachineId): Promise<Machine>;
  stop(id: MachineId): Promise<Machine>;
  destroy(id: MachineId): Promise<Machine>;
  /** Raw RFB bytes of the browser machine of a session. */
  desktop(id: SessionId): Promise<Duplex>;
  /** Starts or wakes the CLI machine first. */
  terminal(id: MachineId, size: TerminalSize): Promise<Terminal>;
  exec(id: MachineId, request: ExecRequest, signal: AbortSignal): AsyncIterable<ExecEvent>;
}

export interface Terminal {
  readonly stream: Duplex;
  resize(size: TerminalSize): Promise<void>;
  close(): Promise<void>;
}

export interface Credentials {
  list(filter: { userId?: UserId }): Promise<Credential[]>;
  get(id: CredentialId): Promise<Credential | undefined>;
  /** Deletes the stored credential and the file in its holder; never runs the CLI's logout (it would revoke). */
  remove(id: CredentialId): Promise<void>;
}

export interface Hosts {
  list(): Promise<Host[]>;
  /** Tries everything that a machine needs of a host, now: seconds. Throws `not_found`, `host_unreachable`. */
  doctor(id: string): Promise<DoctorReport>;
}

/** Counts of what is there now, and of what was over in a span of time. */
export interface Statistics {
  readonly active: readonly { state: SessionState; count: number }[];
  /** Those that have not ended. */
  readonly machines: readonly { kind: MachineKind; state: MachineState; count: number }[];
  /** Ready ones that do not work. */
  readonly degraded: readonly { diagnosis: DiagnosisName; kind: MachineKind; count: number }[];
  /** Sessions that were over, clean-up included, in the span; `code` of their error. */
  readonly ended: readonly {
    provider: ProviderId;
    realm: Realm;
    state: SessionState;
    code: ErrorCode | 'none';
    count: number;
  }[];
  /** Their steps: how many, how long together, and how many took at most each of the bounds. */
  readonly steps: readonly { step: string; count: number; seconds: number; within: readonly number[] }[];
  /** The end of the span, exclusive. */
  readonly upTo: Date;
}

export interface Operation {
  /** @param stepBuckets upper bounds in seconds, ascending */
  statistics(from: Date, stepBuckets: readonly number[]): Promise<Statistics>;
  settings(): Promise<Settings>;
  /** Changes what is named; from then on for every controller on this database. */
  changeSettings(patch: SettingsPatch): Promise<Settings>;
  /** What stays for a while and goes by itself. */
  cleanUp(): Promise<CleanUp>;
}

export interface Services {
  readonly logins: Logins;
  readonly machines: Machines;
  readonly credentials: Credentials;
  readonly hosts: Hosts;
  readonly operation: Operation;
  readonly meters: Meters;
}
