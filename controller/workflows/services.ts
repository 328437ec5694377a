/** Puts the workflows together behind the seam of controller/services.ts. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DBOS } from '@dbos-inc/dbos-sdk';
import type { Logger } from 'pino';
import { PolydevError } from '../../protocol/errors.ts';
import type { HostClient } from '../hosts/host-client.ts';
import { createMeters } from '../meters.ts';
import type { Services } from '../services.ts';
import { listen } from '../store/notifications.ts';
import { prune } from '../store/prune.ts';
import type { Database } from '../store/tables.ts';
import type { Vault } from '../vault/vault.ts';
import { type Context, DEFAULT_SETTINGS, type WorkflowSettings } from './context.ts';
import { createCredentials } from './credential-service.ts';
import { configureEngine, pruneWorkflows } from './engine.ts';
import { createHosts } from './host-service.ts';
import { type LoginFlow, registerAbandon, registerLogin } from './login.ts';
import { createLogins } from './logins.ts';
import { type MachineFlows, registerMachineFlows } from './machine-flows.ts';
import { createMachines } from './machine-service.ts';
import { keepWatch } from './machine-watch.ts';
import { createOperation } from './operation.ts';
import { ownChecks } from './own-checks.ts';
import { keepPool } from './pool.ts';
import { reconcileMachines, reconcileSessions } from './reconcile.ts';
import { createUses } from './uses.ts';

export interface ServicesDeps {
  /** Migrated. */
  readonly db: Database;
  /** Of the same database: LISTEN and DBOS make their own connections. */
  readonly databaseUrl: string;
  readonly vault: Vault;
  readonly hostClient: HostClient;
  readonly log: Logger;
  /** For the doctor, which looks at its mode; absent: the key is from the environment. */
  readonly masterKeyFile?: string;
  /** Default: DEFAULT_SETTINGS. */
  readonly settings?: Partial<WorkflowSettings>;
  /** Stable over restarts, different for each controller on one database. Default `controller-1`. */
  readonly executorId?: string;
}

/**
 * Starts the workflow engine, takes up what a controller of the same executor id left, and gives the services. Only
 * one at a time in a process, because DBOS is global. Disposing it leaves sessions under way as they are: the next
 * start goes on with them.
 */
export async function createServices(deps: ServicesDeps): Promise<Services & AsyncDisposable> {
  if (DBOS.isInitialized()) throw new PolydevError('internal', 'the workflow engine runs already');
  const closing = new AbortController();
  const { log } = deps;
  await using starting = new AsyncDisposableStack();
  const notifications = await listen({
    url: deps.databaseUrl,
    onError: (error) => log.warn({ err: error }, 'the connection for notifications is lost; it is renewed'),
  });
  starting.use(notifications);
  const context: Context = {
    db: deps.db,
    vault: deps.vault,
    host: deps.hostClient,
    notifications,
    uses: createUses(),
    settings: { ...DEFAULT_SETTINGS, ...deps.settings },
    log,
    meters: createMeters(),
    began: new Date(),
    closing: closing.signal,
  };

  starting.use(
    configureEngine({ databaseUrl: deps.databaseUrl, executorId: deps.executorId ?? 'controller-1', log }),
  );
  starting.defer(() => DBOS.shutdown({ deregister: true }));
  starting.defer(() => closing.abort());
  const login = registerLogin(context);
  const abandon = registerAbandon(context);
  const flows = registerMachineFlows(context);
  await DBOS.launch();
  context.meters.recovered('session_resumed', await reconcileSessions(context, { login, abandon }));
  const looking = Promise.all([keepReconciled(context, { ...flows, login, abandon }), keepWatch(context)]);

  const running = starting.move();
  return {
    logins: createLogins(context, login),
    machines: createMachines(context, flows),
    credentials: createCredentials(context, flows),
    hosts: createHosts(context, () => ownChecks(context.db, deps.masterKeyFile)),
    meters: context.meters,
    operation: createOperation(context),
    async [Symbol.asyncDispose]() {
      closing.abort();
      await looking;
      await running.disposeAsync();
    },
  };
}

/** A workflow that died beside its session is as rare as a failure of the engine itself. */
const SESSIONS_EVERY_MS = 30_000;
const PRUNE_EVERY_MS = 3_600_000;
const DAY_MS = 86_400_000;

async function keepReconciled(
  context: Context,
  flows: MachineFlows & { login: LoginFlow; abandon: LoginFlow },
): Promise<void> {
  let complained = false;
  let pruneAt = 0;
  let sessionsAt = Date.now() + SESSIONS_EVERY_MS;
  while (!context.closing.aborted) {
    if (Date.now() >= pruneAt) {
      pruneAt = Date.now() + PRUNE_EVERY_MS;
      await pruneOld(context);
    }
    try {
      if (Date.now() >= sessionsAt) {
        sessionsAt = Date.now() + SESSIONS_EVERY_MS;
        await reconcileSessions(context, flows);
      }
      await reconcileMachines(context, flows);
      await keepPool(context, flows);
      complained = false;
    } catch (error) {
      if (!complained)
        context.log.warn({ err: PolydevError.from(error) }, 'sessions and machines could not be compared');
      complained = true;
    }
    await sleep(context.settings.reconcileEveryMs, undefined, { signal: context.closing, ref: false }).catch(
      () => undefined,
    );
  }
}

async function pruneOld(context: Context): Promise<void> {
  const cutoff = new Date(Date.now() - context.settings.retentionDays * DAY_MS);
  try {
    const rows = await prune(context.db, cutoff, context.closing);
    const workflows = await pruneWorkflows(cutoff, context.closing);
    if (rows + workflows > 0)
      context.log.info({ rows, workflows, cutoff }, 'what was too old was removed from the database');
  } catch (error) {
    context.log.warn({ err: PolydevError.from(error) }, 'what is too old could not be removed');
  }
}
