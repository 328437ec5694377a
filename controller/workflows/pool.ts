/**
 * Warm start: browser machines that are booted before anybody asks. Nothing in one is anybody's: it has a token that ends with
 * the claim, no login and no file of a person. Whoever claims one finds it checked, with the time and a token of its own.
 */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { PolydevError } from '../../protocol/errors.ts';
import type { HostHealth } from '../../protocol/host.ts';
import { type MachineId, newMachineId } from '../../protocol/ids.ts';
import { Realm } from '../../protocol/machine.ts';
import type { Settings } from '../../protocol/settings.ts';
import { tell, wake, wokeNow } from '../hosts/wake.ts';
import { advanceMachine } from '../store/machines.ts';
import { claimPooled, lastPoolFailure, listPooled, requestPooled } from '../store/pool.ts';
import type { MachineRow, SessionRow } from '../store/tables.ts';
import { agentOf, type Context, pooledAgentOf, readOperatorSettings } from './context.ts';
import { asking, type MachineFlows } from './machine-flows.ts';
import { destroyMachine } from './machine-steps.ts';
import { preserve } from './preserve.ts';

/** A machine that does not answer at once is not warm: the session gets a new one. */
const CLAIM_DEADLINE_MS = 5_000;
/** Broken ones that a session tries before it starts its own. */
const CLAIM_ATTEMPTS = 3;
/** After one that failed, the next is not started sooner: the cause may last. */
const AFTER_FAILURE_MS = 60_000;
/** Older than this they are replaced: certificates, caches and their browser age. */
const MAX_AGE_MS = 6 * 3_600_000;
/** Of the host's memory, this much is left to machines that somebody waits for. */
const MEMORY_RESERVE = 0.2;
/** Below this the pool gives its machines back, one at each look. */
const MEMORY_SHORT = 0.1;
/** Free disk, MiB, below which none is started. */
const DISK_RESERVE_MIB = 4096;

/** Gives a session a warm machine of its realm, checked and its own from now on; undefined when there is none. */
export async function claimWarm(
  context: Context,
  session: SessionRow,
  signal: AbortSignal,
): Promise<MachineRow | undefined> {
  const { machinesPerPerson: machines, diskMiBPerPerson: diskMiB } = await readOperatorSettings(context);
  const claimant = {
    sessionId: session.id,
    userId: session.userId,
    realm: session.realm,
    quota: { machines, diskMiB },
  };
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
    const outcome = await claimPooled(context.db, claimant, (row) => personalise(context, row, signal));
    if (outcome === undefined) return undefined;
    if ('claimed' in outcome) return outcome.claimed;
    if (signal.aborted) throw signal.reason;
    const { broken, error } = outcome;
    const named = PolydevError.from(error, 'machine_unreachable');
    await discard(context, broken, named);
  }
  return undefined;
}

/** It goes with its reason and its evidence; the next look starts another. */
async function discard(context: Context, id: MachineId, error: PolydevError): Promise<void> {
  context.log.warn({ machine: id, code: error.code }, 'a warm machine is broken, and is replaced');
  await preserve(context, id, { error, screenshot: true });
  const report = { error: error.toReport() };
  await advanceMachine(context.db, id, 'failed', report, { from: ['ready'], pooled: true }).catch(tooLate);
}

/** Somebody else has taken it away, or a session has it: what it is then is not the pool's. */
function tooLate(error: unknown): void {
  if (PolydevError.from(error).code !== 'illegal_transition') throw error;
}

/** @throws what is wrong with it */
async function personalise(context: Context, row: MachineRow, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(CLAIM_DEADLINE_MS)]);
  const agentTokenHash = context.vault.deriveMachineToken(row.id).hash;
  const told = await tell(pooledAgentOf(context, row.id), { ...wokeNow(), agentTokenHash }, limit);
  const agent = agentOf(context, row.id);
  if (!told.right) await wake(agent, limit);
  const { ready, failure } = await agent.health(limit);
  if (failure !== null) throw PolydevError.fromReport({ error: failure });
  if (!ready) throw new PolydevError('machine_unreachable', `machine ${row.id} is not ready any more`);
}

/** What the pool of a host is, and why it is not what it should be. */
export interface PoolState {
  readonly wanted: number;
  readonly ready: number;
  readonly starting: number;
  readonly problem: string | null;
}

const wantedOf = (settings: Settings, realm: Realm): number =>
  realm === 'test' ? settings.warmTestMachines : settings.warmMachines;

const isStarting = ({ state }: MachineRow): boolean => ['requested', 'creating', 'booting'].includes(state);

/** As it is now. */
export async function poolState(context: Context, health: HostHealth | undefined): Promise<PoolState> {
  const settings = await readOperatorSettings(context);
  const rows = await listPooled(context.db, context.host.id);
  const wanted = settings.warmMachines + settings.warmTestMachines;
  return {
    wanted,
    ready: rows.filter(({ state }) => state === 'ready').length,
    starting: rows.filter(isStarting).length,
    problem: wanted === 0 || health === undefined ? null : (shortOf(health, context) ?? null),
  };
}

/** What the host has too little of to start one more machine that nobody waits for. */
function shortOf(health: HostHealth, context: Context): string | undefined {
  const { memoryMiB, diskMiB, promisedDiskMiB, problems } = health;
  const { browser } = context.settings.limits;
  if (problems.length > 0) return problems[0];
  if (memoryMiB.available - browser.memoryMiB < memoryMiB.total * MEMORY_RESERVE) {
    return `only ${memoryMiB.available} MiB of memory are free`;
  }
  if (diskMiB.available < DISK_RESERVE_MIB) return `only ${diskMiB.available} MiB of disk are free`;
  if (promisedDiskMiB.used + (browser.diskMiB ?? 0) > promisedDiskMiB.allowed * (1 - MEMORY_RESERVE)) {
    return `${promisedDiskMiB.used} of ${promisedDiskMiB.allowed} MiB of disk are promised to machines`;
  }
  return undefined;
}

/**
 * One look at the pool: takes away what is too old, of another image or too many, and starts one machine where one is missing, the host
 * has room for it and the last start is long enough ago.
 */
export async function keepPool(context: Context, flows: MachineFlows): Promise<void> {
  const settings = await readOperatorSettings(context);
  const rows = await listPooled(context.db, context.host.id);
  if (rows.length === 0 && settings.warmMachines + settings.warmTestMachines === 0) return;
  for (const { id, state, health } of rows) {
    if (state !== 'ready' || health?.state !== 'degraded') continue;
    const why = health.diagnosis?.summary ?? 'it does not work';
    await discard(context, id, new PolydevError('machine_unreachable', why));
  }
  const health = await context.host.health(AbortSignal.timeout(5_000));
  const hungry = health.memoryMiB.available < health.memoryMiB.total * MEMORY_SHORT;
  for (const realm of Realm.options) {
    const mine = rows.filter((row) => row.realm === realm);
    const ready = mine.filter(({ state }) => state === 'ready');
    const wanted = wantedOf(settings, realm);
    const surplus = ready.length + mine.filter(isStarting).length - wanted;
    const old = ready.filter((row) => isOld(row, health));
    const [goes] = hungry || surplus > 0 ? ready : old;
    if (goes !== undefined) await giveBack(context, goes);
    if (surplus >= 0 || hungry) continue;
    if (shortOf(health, context) === undefined && (await isTime(context, settings, rows))) {
      await startOne(context, flows, realm);
      // One at a time: the next look sees it.
      return;
    }
  }
}

const isOld = ({ image, createdAt }: MachineRow, health: HostHealth): boolean =>
  (health.image !== null && image !== health.image) || Date.now() - createdAt.getTime() > MAX_AGE_MS;

async function isTime(context: Context, settings: Settings, rows: readonly MachineRow[]): Promise<boolean> {
  if (rows.some(isStarting)) return false;
  const last = Math.max(0, ...rows.map(({ createdAt }) => createdAt.getTime()));
  const failed = (await lastPoolFailure(context.db, context.host.id))?.getTime() ?? 0;
  const now = Date.now();
  return now - last >= settings.warmRefillSeconds * 1000 && now - failed >= AFTER_FAILURE_MS;
}

async function startOne(context: Context, flows: MachineFlows, realm: Realm): Promise<void> {
  const { limits, display } = context.settings;
  const id = newMachineId();
  const place = { hostId: context.host.id, limits: limits.browser, display };
  const row = await requestPooled(context.db, { id, realm, ...place });
  await DBOS.startWorkflow(flows.start, { workflowID: `warm-${id}` })(asking(context, row));
}

/** Takes it from the pool first: nobody is given one that goes. */
async function giveBack(context: Context, { id }: MachineRow): Promise<void> {
  try {
    await advanceMachine(context.db, id, 'destroying', {}, { from: ['ready'], pooled: true });
  } catch (error) {
    // Somebody was faster and has it.
    if (PolydevError.from(error).code === 'illegal_transition') return;
    throw error;
  }
  await destroyMachine(context, id, context.closing);
}
