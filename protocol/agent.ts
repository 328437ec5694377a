/**
 * The guest agent's API: HTTP/1.1 with JSON on the machine's channel and TCP 8080. Every request carries
 * `Authorization: Bearer <agent token>`; the agent knows only the token's SHA-256. Errors are `{error: ErrorReport}`.
 *
 *   GET    /health                     AgentHealth
 *   GET    /v1/boot                    NDJSON of BootEvent: those so far, then live; ends after `ready` or `failed`
 *   POST   /v1/login       LoginStart  LoginStatus; single flight: a second start of the same id returns the first
 *   GET    /v1/login                   LoginStatus
 *   GET    /v1/login/events            NDJSON of LoginStatus: the current one, then every change; ends when final
 *   POST   /v1/login/input {text}      LoginStatus; a pasted code or callback URL for the CLI
 *   DELETE /v1/login                   LoginStatus; cancels
 *   GET    /v1/credentials/:provider          CredentialStatus
 *   GET    /v1/credentials/:provider/files    CredentialBundle (plaintext: only the vault asks for it)
 *   PUT    /v1/credentials/:provider          CredentialBundle -> CredentialStatus; atomically, mode 0600
 *   DELETE /v1/credentials/:provider          204; deletes the files, never runs the CLI's logout
 *   POST   /v1/exec        ExecRequest NDJSON of ExecEvent
 *   POST   /v1/terminals   TerminalStart  {id}
 *   POST   /v1/terminals/:id/size {cols, rows}  204
 *   GET    /v1/terminals/:id/stream    Upgrade: tcp -> 101, raw bytes of the pseudo terminal
 *   DELETE /v1/terminals/:id           204
 *   GET    /v1/desktop/vnc             Upgrade: tcp -> 101, raw RFB bytes of the desktop
 *   POST   /v1/woke        Woke        WokeReply; after a sleep or a claim: sets the clock, reseeds the kernel's random numbers
 *   GET    /v1/clock                   AgentClock
 *   POST   /v1/become      Become      AgentClock; a copy of another machine becomes a machine of its own
 *   GET    /v1/log                     text/plain: the agent's own log (bounded), with the desktop's lines
 *   GET    /v1/journal                 text/plain: the last lines of systemd's journal (bounded); not_found where there is no systemd
 */
import { z } from 'zod';
import { ErrorReport } from './errors.ts';
import { MachineId, ProviderId, SessionId } from './ids.ts';
import { GuestConfig, MachineKind, Stamp } from './machine.ts';

/** Of a virtual machine's one interface, as the guest has it: what the host can only assume. */
export const GuestNetwork = z.object({
  /** IPv4, without the length of the network. Empty: it has none, or there is no interface. */
  addresses: z.array(z.string()).max(20),
  /** Path of the file by which networkd configures it; null: by none. `dhcp`: it asks a server. */
  file: z.string().max(300).nullable(),
  dhcp: z.boolean(),
  /** Programs that run and give interfaces addresses, networkd excepted. */
  others: z.array(z.string()).max(20),
});
export type GuestNetwork = z.infer<typeof GuestNetwork>;

export const AgentHealth = z.object({
  version: z.string(),
  machineId: MachineId,
  kind: MachineKind,
  uptimeMs: z.number(),
  stamps: z.array(Stamp),
  ready: z.boolean(),
  /** Why the boot cannot go on, as soon as that is certain. */
  failure: ErrorReport.nullable(),
  /** Absent: the machine's kernel is the host's. */
  network: GuestNetwork.optional(),
});
export type AgentHealth = z.infer<typeof AgentHealth>;

export const BootEvent = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stamp'), stamp: Stamp }),
  z.object({ type: z.literal('ready') }),
  z.object({ type: z.literal('failed'), error: ErrorReport }),
]);
export type BootEvent = z.infer<typeof BootEvent>;

/**
 * Tells a guest that it has slept (its driver resumed it, or somebody claimed it from a pool): what time it is, and bytes
 * that nobody else has. `agentTokenHash` replaces the hash of the token from the next request on.
 */
export const Woke = z.strictObject({
  time: z.iso.datetime({ precision: 3 }),
  entropyBase64: z.base64().min(44).max(1024),
  agentTokenHash: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  /** What the agent's own clock (GET /v1/clock) said at that time, so that the way of this call does not matter. Absent: it is that of the call. */
  uptimeMs: z.number().optional(),
  /** The machine is going to be copied: what its copies need at once is started, and waits. */
  prepare: z.boolean().optional(),
});
export type Woke = z.infer<typeof Woke>;

export const WokeReply = z.object({
  /** The guest's clock when it answered. */
  time: z.iso.datetime({ precision: 3 }),
  /** How far the guest's clock was ahead when it was asked, in milliseconds. */
  aheadMs: z.number(),
  /** False where the guest has its host's clock, or is right already. */
  clockSet: z.boolean(),
  /** False where the guest has its host's random numbers. */
  reseeded: z.boolean(),
});
export type WokeReply = z.infer<typeof WokeReply>;

const Mac = z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);

/** How a machine is reached: what networkd's file on the config drive says. */
export const Link = z.strictObject({
  address: z.ipv4(),
  mac: Mac,
  gateway: z.strictObject({ address: z.ipv4(), mac: Mac }),
  /** That file. */
  networkd: z.string().max(4096),
});
export type Link = z.infer<typeof Link>;

/** A clock of the agent's own that nobody sets, and that has no meaning outside: whoever asks twice knows what passed. */
export const AgentClock = z.object({ uptimeMs: z.number() });
export type AgentClock = z.infer<typeof AgentClock>;

/**
 * Tells a guest that it was copied, memory and all, from one that nobody ever used: everything by which machines differ. The call
 * itself carries the token of the one it was copied from, for the last time; a channel with a mark has that of `config` afterwards.
 */
export const Become = z.strictObject({
  config: GuestConfig,
  link: Link,
  /** What time it was when the agent's own clock said `uptimeMs`, so that the way of this call does not matter, and bytes that nobody else has. Absent: both were told (POST /v1/woke). */
  wake: z
    .strictObject({
      time: z.iso.datetime({ precision: 3 }),
      uptimeMs: z.number(),
      entropyBase64: z.base64().min(44).max(1024),
    })
    .optional(),
});
export type Become = z.infer<typeof Become>;

export const LoginStart = z.strictObject({ session: SessionId, provider: ProviderId });
export type LoginStart = z.infer<typeof LoginStart>;

export const LoginState = z.enum(['starting', 'waiting_for_person', 'succeeded', 'failed', 'cancelled']);
export type LoginState = z.infer<typeof LoginState>;

export const LoginStatus = z.object({
  session: SessionId,
  provider: ProviderId,
  state: LoginState,
  /** The provider's page. Holds `state` and the PKCE challenge, no secret; shown to its owner only. */
  url: z.string().nullable(),
  error: ErrorReport.nullable(),
});
export type LoginStatus = z.infer<typeof LoginStatus>;

/** One file of a credential. `path` is relative to the person's home, forward slashes, no `..`. */
export const CredentialFile = z.object({
  path: z.string().regex(/^(?!\/)(?!.*(^|\/)\.\.(\/|$))[A-Za-z0-9._/-]+$/),
  mode: z.number().int(),
  contentBase64: z.string(),
});
export type CredentialFile = z.infer<typeof CredentialFile>;
export const CredentialBundle = z.object({
  provider: ProviderId,
  files: z.array(CredentialFile).min(1).max(16),
});
export type CredentialBundle = z.infer<typeof CredentialBundle>;

/** What may be known of a credential outside the vault. */
export const CredentialFacts = z.object({
  /** The provider's stable account id. */
  accountId: z.string(),
  email: z.string().nullable(),
  /** As the provider names it, for example plus, pro, max. */
  subscription: z.string().nullable(),
  accessExpiresAt: z.iso.datetime().nullable(),
});
export type CredentialFacts = z.infer<typeof CredentialFacts>;

export const CredentialStatus = z.object({
  provider: ProviderId,
  state: z.enum(['absent', 'incomplete', 'complete']),
  facts: CredentialFacts.nullable(),
  /** Why it is incomplete; never a token. */
  problem: z.string().nullable(),
});
export type CredentialStatus = z.infer<typeof CredentialStatus>;

export const ExecRequest = z.strictObject({
  argv: z.array(z.string()).min(1).max(256),
  /** Relative to the person's home; default the home. */
  cwd: z.string().optional(),
  env: z.record(z.string(), z.string()).optional(),
  stdin: z.string().max(1_048_576).optional(),
  timeoutMs: z.number().int().min(100).max(3_600_000),
});
export type ExecRequest = z.infer<typeof ExecRequest>;

export const ExecEvent = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stdout'), text: z.string() }),
  z.object({ type: z.literal('stderr'), text: z.string() }),
  z.object({
    type: z.literal('exit'),
    code: z.number().int().nullable(),
    signal: z.string().nullable(),
    timedOut: z.boolean(),
  }),
]);
export type ExecEvent = z.infer<typeof ExecEvent>;

export const TerminalSize = z.strictObject({
  cols: z.number().int().min(2).max(1000),
  rows: z.number().int().min(2).max(1000),
});
export type TerminalSize = z.infer<typeof TerminalSize>;
export const TerminalStart = TerminalSize.extend({ argv: z.array(z.string()).min(1).optional() });
export type TerminalStart = z.infer<typeof TerminalStart>;
