/** The controller's public API: what a page, a script or `./polydev` sends and gets. */
import { z } from 'zod';
import { CredentialFacts } from './agent.ts';
import { Diagnosis } from './diagnoses.ts';
import { ErrorReport } from './errors.ts';
import { HostHealth } from './host.ts';
import { CredentialId, MachineId, ProviderId, SessionId, UserId } from './ids.ts';
import { MachineAction, MachineState, SessionState } from './lifecycles.ts';
import { MachineKind, Realm, Stamp } from './machine.ts';
import { Settings } from './settings.ts';

const Time = z.iso.datetime({ precision: 3 });

export const AuthStart = z.strictObject({
  /** Whose account; default: the caller. Only an API key or the operator may name somebody else. */
  userId: UserId.optional(),
  provider: ProviderId,
  /** A label for one of several accounts; default `default`. */
  account: z
    .string()
    .min(1)
    .max(64)
    .regex(/^[A-Za-z0-9._@-]+$/)
    .optional(),
  /** `test` signs in at the test identity provider inside a sealed network. */
  realm: Realm.optional(),
  /** How long the person has, seconds. */
  expiresInSeconds: z.number().int().min(5).max(3600).optional(),
  /** Keep this login's browser machine for a while if the login fails; default: the setting `keepFailed`. */
  keepFailed: z.boolean().optional(),
});
export type AuthStart = z.infer<typeof AuthStart>;

/**
 * One line of a timeline. `state`: the subject entered it; `checkpoint`: a machine's boot reached it; `step`: a
 * named piece of work of the session is done (its duration is given); `diagnosis`: a failure got its name; `health`: a
 * machine that is ready became `degraded` (`detail` is the diagnosis's name) or `healthy` again.
 */
export const TimelineEvent = z.object({
  seq: z.number().int(),
  at: Time,
  subject: z.enum(['session', 'machine']),
  id: z.string(),
  kind: z.enum(['state', 'checkpoint', 'step', 'diagnosis', 'health']),
  name: z.string(),
  durationMs: z.number().nullable(),
  detail: z.string().nullable(),
});
export type TimelineEvent = z.infer<typeof TimelineEvent>;

export const Session = z.object({
  id: SessionId,
  userId: UserId,
  provider: ProviderId,
  account: z.string(),
  realm: Realm,
  state: SessionState,
  createdAt: Time,
  expiresAt: Time,
  endedAt: Time.nullable(),
  browserMachineId: MachineId.nullable(),
  cliMachineId: MachineId.nullable(),
  credentialId: CredentialId.nullable(),
  loginUrl: z.string().nullable(),
  /** Path of the live desktop page of this session. */
  liveViewPath: z.string(),
  /** What the CLI's own status command said in the CLI machine. */
  verification: z.string().nullable(),
  error: ErrorReport.nullable(),
  actions: z.array(z.enum(['cancel', 'view', 'input'])),
  timeline: z.array(TimelineEvent),
});
export type Session = z.infer<typeof Session>;

export const SessionInput = z.strictObject({ text: z.string().min(1).max(8192) });

/** Whether a machine that is ready works, as far as can be seen from outside; looked at every 15 to 30 seconds. */
export const MachineHealth = z.object({
  state: z.enum(['healthy', 'degraded']),
  since: Time,
  /** What is wrong; null when nothing is. */
  diagnosis: Diagnosis.nullable(),
});
export type MachineHealth = z.infer<typeof MachineHealth>;

export const Machine = z.object({
  id: MachineId,
  kind: MachineKind,
  realm: Realm,
  userId: UserId,
  sessionId: SessionId.nullable(),
  state: MachineState,
  driver: z.string().nullable(),
  image: z.string().nullable(),
  address: z.string().nullable(),
  createdAt: Time,
  endedAt: Time.nullable(),
  /** Booted before anybody asked for it; nobody's until a login claims it. */
  pooled: z.boolean(),
  /** A failed machine that is kept for a while goes then. */
  removeAt: Time.nullable(),
  stamps: z.array(Stamp),
  error: ErrorReport.nullable(),
  /** Null: it is not ready, or nobody has looked yet. */
  health: MachineHealth.nullable(),
  actions: z.array(MachineAction),
});
export type Machine = z.infer<typeof Machine>;

export const Credential = z.object({
  id: CredentialId,
  userId: UserId,
  provider: ProviderId,
  account: z.string(),
  realm: Realm,
  version: z.number().int(),
  facts: CredentialFacts,
  createdAt: Time,
  updatedAt: Time,
  /** The one machine that holds it, if any. */
  holderMachineId: MachineId.nullable(),
});
export type Credential = z.infer<typeof Credential>;

export const Provider = z.object({ id: ProviderId, title: z.string(), connected: z.array(Credential) });
export type Provider = z.infer<typeof Provider>;

export const Host = z.object({
  id: z.string(),
  driver: z.string(),
  image: z.string().nullable(),
  ok: z.boolean(),
  problems: z.array(z.string()),
  machines: z.number().int(),
  memoryMiB: z.object({ total: z.number(), available: z.number() }),
  diskMiB: z.object({ total: z.number(), available: z.number() }),
  /** Null while the host does not answer. */
  promisedDiskMiB: HostHealth.shape.promisedDiskMiB.nullable(),
  evidence: HostHealth.shape.evidence.nullable(),
  load: HostHealth.shape.load.nullable(),
  addresses: HostHealth.shape.addresses.nullable(),
  recovered: HostHealth.shape.recovered.nullable(),
  /** Browser machines that are booted before anybody asks; `problem`: why there are not more. */
  pool: z.object({
    wanted: z.number().int(),
    ready: z.number().int(),
    starting: z.number().int(),
    problem: z.string().nullable(),
  }),
});
export type Host = z.infer<typeof Host>;

/** What stays for a while and goes by itself, and how long. */
export const CleanUp = z.object({
  settings: Settings,
  /** Failed machines that are kept, those that go first first. */
  kept: z.array(Machine),
  /** Machines of hosts that are in no database. */
  orphans: z.array(z.object({ id: MachineId, hostId: z.string(), seenAt: Time, removeAt: Time })),
});
export type CleanUp = z.infer<typeof CleanUp>;

/** A ticket opens one stream on one machine for one minute. */
export const TicketRequest = z.discriminatedUnion('purpose', [
  z.strictObject({ purpose: z.literal('desktop'), sessionId: SessionId }),
  z.strictObject({ purpose: z.literal('terminal'), machineId: MachineId }),
]);
export type TicketRequest = z.infer<typeof TicketRequest>;
export const Ticket = z.object({ ticket: z.string(), expiresAt: Time, webSocketPath: z.string() });
export type Ticket = z.infer<typeof Ticket>;

/** What a terminal's WebSocket carries from the page as text frames; binary frames are keystrokes and output. */
export const TerminalControl = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('size'), cols: z.number().int(), rows: z.number().int() }),
]);

export const Me = z.object({ userId: UserId, role: z.enum(['operator', 'user']), realms: z.array(Realm) });
export type Me = z.infer<typeof Me>;
