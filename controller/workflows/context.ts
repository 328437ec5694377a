/**
 * workflows/: the durable work: login sessions and machines, from request to clean-up, as DBOS workflows. Each step
 * can be repeated: a controller that was killed goes on at the step where it was.
 *
 * This file says what every step works with.
 */
import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import type { MachineId } from '../../protocol/ids.ts';
import { DEFAULT_DISK_MIB, type Display, type Limits, type MachineKind } from '../../protocol/machine.ts';
import { SETTINGS_DEFAULTS, Settings, type SettingsPatch } from '../../protocol/settings.ts';
import { type AgentClient, createAgentClient } from '../hosts/agent-client.ts';
import type { HostClient } from '../hosts/host-client.ts';
import type { Meters } from '../meters.ts';
import type { Notifications } from '../store/notifications.ts';
import { readSettings } from '../store/settings.ts';
import type { Database } from '../store/tables.ts';
import type { Vault } from '../vault/vault.ts';
import type { Uses } from './uses.ts';

export interface WorkflowSettings {
  readonly limits: Readonly<Record<MachineKind, Limits>>;
  readonly display: Display;
  /** From the request of a machine's start to its agent being ready. */
  readonly bootDeadlineMs: number;
  /** How often the machines of the host are compared with the database. */
  readonly reconcileEveryMs: number;
  /** A machine that is ready is looked at after so long: at least and at most, by chance. */
  readonly lookEveryMs: readonly [least: number, most: number];
  /** How long events, audit entries, ended sessions and destroyed machines stay in the database. */
  readonly retentionDays: number;
  /** What is otherwise than SETTINGS_DEFAULTS until an operator changes it. */
  readonly operator: SettingsPatch;
}

export const DEFAULT_SETTINGS: WorkflowSettings = {
  limits: {
    browser: { cpus: 2, memoryMiB: 2048, pids: 1024, diskMiB: DEFAULT_DISK_MIB.browser },
    cli: { cpus: 2, memoryMiB: 2048, pids: 1024, diskMiB: DEFAULT_DISK_MIB.cli },
  },
  display: { width: 1280, height: 800 },
  bootDeadlineMs: 60_000,
  reconcileEveryMs: 5_000,
  lookEveryMs: [15_000, 30_000],
  retentionDays: 90,
  operator: {},
};

export interface Context {
  readonly db: Database;
  readonly vault: Vault;
  readonly host: HostClient;
  readonly notifications: Notifications;
  readonly uses: Uses;
  readonly settings: WorkflowSettings;
  readonly log: Logger;
  readonly meters: Meters;
  /** What was begun before was begun by an earlier controller. */
  readonly began: Date;
  /** Fires when this controller shuts down: steps are left where they are, for the next start. */
  readonly closing: AbortSignal;
}

export function agentOf(context: Context, id: MachineId): AgentClient {
  return createAgentClient(context.host, id, context.vault.deriveMachineToken(id).token);
}

/** The token of a machine before anybody claims it; it ends with the claim. */
export const poolToken = (context: Context, id: MachineId): { token: string; hash: string } => {
  const token = context.vault.deriveKey(`pool-token/${id}`).toString('base64url');
  return { token, hash: createHash('sha256').update(token).digest('hex') };
};

export function pooledAgentOf(context: Context, id: MachineId): AgentClient {
  return createAgentClient(context.host, id, poolToken(context, id).token);
}

/** Of a machine as its row says: in the pool or somebody's. */
export const agentOfRow = (
  context: Context,
  { id, pooled }: { id: MachineId; pooled: boolean },
): AgentClient => (pooled ? pooledAgentOf(context, id) : agentOf(context, id));

/** As they are now: an operator may have changed them a moment ago. */
export const readOperatorSettings = async (context: Context): Promise<Settings> =>
  Settings.parse({
    ...SETTINGS_DEFAULTS,
    ...context.settings.operator,
    ...(await readSettings(context.db)),
  });
