/**
 * store/: everything that is in Postgres, through Kysely; one small file per noun. The only folder that writes SQL.
 *
 * This file gives the shape of every table of the schema `polydev`; `migrations/` creates them.
 */
import type { ColumnType, Generated, JSONColumnType, Kysely, Selectable, Transaction } from 'kysely';
import type { CredentialFacts } from '../../protocol/agent.ts';
import type { MachineHealth, TimelineEvent } from '../../protocol/api.ts';
import type { ErrorReport } from '../../protocol/errors.ts';
import type { ApiKeyId, CredentialId, MachineId, ProviderId, SessionId, UserId } from '../../protocol/ids.ts';
import type { MachineState, SessionState } from '../../protocol/lifecycles.ts';
import type { Display, Limits, MachineKind, Realm, Stamp } from '../../protocol/machine.ts';

export type Role = 'operator' | 'user';

/** Written as a Date or left to the database's clock, read as a Date. */
type CreatedAt = ColumnType<Date, Date | undefined, never>;
type NullableDate = ColumnType<Date | null, Date | null | undefined, Date | null>;
type Json<T extends object | null> = JSONColumnType<T, string | null, string | null>;

export interface UsersTable {
  id: UserId;
  createdAt: CreatedAt;
}

export interface ApiKeysTable {
  id: ApiKeyId;
  userId: UserId;
  role: Role;
  /** A label for people. */
  name: string;
  /** SHA-256 of the key, hex. The key itself is never stored. */
  hash: string;
  createdAt: CreatedAt;
  revokedAt: NullableDate;
}

export interface WebSessionsTable {
  hash: string;
  userId: UserId;
  role: Role;
  createdAt: CreatedAt;
  expiresAt: Date;
}

export interface SignInLinksTable {
  hash: string;
  userId: UserId;
  role: Role;
  createdAt: CreatedAt;
  expiresAt: Date;
  usedAt: NullableDate;
}

export interface HostsTable {
  id: string;
  driver: string;
  image: string | null;
  seenAt: Date;
}

export interface MachinesTable {
  id: MachineId;
  kind: MachineKind;
  realm: Realm;
  userId: UserId;
  /** The session for which a browser machine runs; null for a CLI machine. */
  sessionId: SessionId | null;
  hostId: string;
  state: MachineState;
  driver: string | null;
  image: string | null;
  address: string | null;
  limits: Json<Limits>;
  display: Json<Display>;
  stamps: Json<Stamp[]>;
  error: Json<ErrorReport | null>;
  /** Of a ready machine; null when nobody has looked since it is ready. */
  health: Json<MachineHealth | null>;
  createdAt: CreatedAt;
  /** When it entered its state. */
  stateAt: ColumnType<Date, Date | undefined, Date>;
  /** Counts its changes of state. */
  revision: Generated<number>;
  /** When it last entered `creating`. */
  startedAt: NullableDate;
  endedAt: NullableDate;
  /** A failed machine that is kept for a while goes then; null: it goes with its session. */
  removeAt: NullableDate;
  /** When somebody last did something in it. */
  usedAt: ColumnType<Date, Date | undefined, Date>;
  /** Booted before anybody asked; nobody's until a session claims it. */
  pooled: Generated<boolean>;
}

export interface LoginSessionsTable {
  id: SessionId;
  userId: UserId;
  provider: ProviderId;
  account: string;
  realm: Realm;
  state: SessionState;
  createdAt: CreatedAt;
  expiresAt: Date;
  endedAt: NullableDate;
  /** When the browser machine was gone and nothing of the session runs any more. */
  cleanedAt: NullableDate;
  /** Whether its machine is kept when it fails; null: as the setting says. */
  keepFailed: boolean | null;
  browserMachineId: MachineId | null;
  cliMachineId: MachineId | null;
  credentialId: CredentialId | null;
  loginUrl: string | null;
  verification: string | null;
  error: Json<ErrorReport | null>;
}

export interface CredentialsTable {
  id: CredentialId;
  userId: UserId;
  provider: ProviderId;
  account: string;
  realm: Realm;
  version: number;
  /** What the vault sealed; opens only with the master key and this row's identity. */
  sealed: Buffer;
  facts: Json<CredentialFacts>;
  /** The session whose capture wrote this version: makes the capture repeatable. */
  capturedBy: SessionId | null;
  holderMachineId: MachineId | null;
  /** The version that the holder got; null when it is not known. */
  installedVersion: number | null;
  createdAt: CreatedAt;
  updatedAt: ColumnType<Date, Date | undefined, Date>;
}

export interface TimelineTable {
  /** bigint arrives as a string. */
  seq: Generated<string>;
  subject: 'session' | 'machine';
  id: string;
  kind: TimelineEvent['kind'];
  name: string;
  at: CreatedAt;
  durationMs: number | null;
  detail: string | null;
  sessionId: SessionId | null;
  machineId: MachineId | null;
}

export interface SettingsTable {
  name: string;
  /** JSON. */
  value: ColumnType<unknown, string, string>;
  changedAt: ColumnType<Date, Date | undefined, Date>;
}

export interface OrphansTable {
  id: MachineId;
  hostId: string;
  seenAt: CreatedAt;
}

export interface AuditTable {
  seq: Generated<string>;
  who: string;
  action: string;
  target: string;
  at: CreatedAt;
}

export interface Tables {
  users: UsersTable;
  apiKeys: ApiKeysTable;
  webSessions: WebSessionsTable;
  signInLinks: SignInLinksTable;
  hosts: HostsTable;
  machines: MachinesTable;
  loginSessions: LoginSessionsTable;
  credentials: CredentialsTable;
  timeline: TimelineTable;
  audit: AuditTable;
  settings: SettingsTable;
  orphans: OrphansTable;
}

/** What the functions of this folder take: the database, or a transaction in it. */
export type Database = Kysely<Tables>;
export type Tx = Transaction<Tables>;

export type MachineRow = Selectable<MachinesTable>;
export type SessionRow = Selectable<LoginSessionsTable>;
export type CredentialRow = Selectable<CredentialsTable>;
