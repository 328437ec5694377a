/**
 * The pieces of a login session. Each reads what it needs from the database, can be repeated after a crash at any
 * point, and meets a session that is already further on.
 */
import type { ExecEvent, LoginStatus } from '../../protocol/agent.ts';
import { type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import { type MachineId, newMachineId, type ProviderId, type SessionId } from '../../protocol/ids.ts';
import { isFinal, type MachineState, type SessionState } from '../../protocol/lifecycles.ts';
import type { MachineKind } from '../../protocol/machine.ts';
import { providers } from '../../providers/index.ts';
import { isConnectionLost } from '../store/connection.ts';
import { getCredential, releaseHolder } from '../store/credentials.ts';
import { findBrowserMachine, getMachine, requestMachine } from '../store/machines.ts';
import {
  advanceSession,
  getSession,
  markCleaned,
  patchSession,
  recordStep,
  type SessionPatch,
} from '../store/sessions.ts';
import type { MachineRow, SessionRow } from '../store/tables.ts';
import { keepForAWhile } from './clean-up.ts';
import { agentOf, type Context, readOperatorSettings } from './context.ts';
import { bootMachine, destroyMachine, readMachine } from './machine-steps.ts';
import { claimWarm } from './pool.ts';
import { preserve } from './preserve.ts';
import { withRetries } from './retries.ts';
import { watched } from './watch.ts';

export type LoginStep = (context: Context, id: SessionId) => Promise<void>;

const WAY: readonly SessionState[] = [
  'queued',
  'preparing',
  'waiting_for_person',
  'capturing',
  'storing',
  'installing',
  'completed',
];

/** @throws not_found; the error of the session when it was ended from outside */
async function readSession(context: Context, id: SessionId): Promise<SessionRow> {
  const row = await getSession(context.db, id);
  if (row === undefined) throw new PolydevError('not_found', `there is no session ${id}`);
  return row;
}

/** Goes on to a state unless the session is already there or further. */
async function goOn(
  context: Context,
  id: SessionId,
  to: SessionState,
  patch: SessionPatch = {},
): Promise<void> {
  const { state } = await readSession(context, id);
  if (!isFinal(state) && WAY.indexOf(state) >= WAY.indexOf(to)) return patchIfAny(context, id, patch);
  await advanceSession(context.db, id, to, patch);
}

async function patchIfAny(context: Context, id: SessionId, patch: SessionPatch): Promise<void> {
  if (Object.keys(patch).length > 0) await patchSession(context.db, id, patch);
}

function machineOf(row: SessionRow): MachineId {
  if (row.browserMachineId !== null) return row.browserMachineId;
  throw new PolydevError('internal', `session ${row.id} has no browser machine`);
}

async function request(context: Context, row: SessionRow, kind: MachineKind): Promise<MachineRow> {
  const { machinesPerPerson: machines, diskMiBPerPerson: diskMiB } = await readOperatorSettings(context);
  return requestMachine(
    context.db,
    {
      id: newMachineId(),
      kind,
      realm: row.realm,
      userId: row.userId,
      sessionId: kind === 'browser' ? row.id : null,
      hostId: context.host.id,
      limits: context.settings.limits[kind],
      display: context.settings.display,
    },
    { machines, diskMiB },
  );
}

/** How many times the usual deadlines are for work inside this machine. */
const slowdownOf = (context: Context, id: MachineId, signal: AbortSignal): Promise<number> =>
  withRetries(signal, async () => (await context.host.get(id, signal))?.slowdown ?? 1);

/** Requests and boots the browser machine. */
export const prepareBrowserMachine: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  await watched(context, { sessionId: id, expiresAt: row.expiresAt }, async (signal) => {
    await goOn(context, id, 'preparing');
    const machine =
      (await findBrowserMachine(context.db, id)) ??
      (await claimWarm(context, row, signal)) ??
      (await request(context, row, 'browser'));
    await patchSession(context.db, id, { browserMachineId: machine.id });
    await bootMachine(context, machine.id, signal);
  });
  await recordStep(context.db, id, 'browser_machine', performance.now() - began);
};

/** Starts the CLI's login in the browser machine and waits for the provider's page. */
export const startLogin: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  const machineId = machineOf(row);
  await watched(context, { sessionId: id, expiresAt: row.expiresAt, machineId }, async (signal) => {
    const slowdown = await slowdownOf(context, machineId, signal);
    const seconds = providers[row.provider].login.urlDeadlineSeconds * slowdown;
    await withRetries(signal, () =>
      agentOf(context, machineId).startLogin({ session: id, provider: row.provider }, signal),
    );
    // The agent has the same deadline and names the failure itself; a little more here covers an agent that hangs.
    const limit = AbortSignal.timeout((seconds + 10) * 1000);
    const status = await followLogin(
      context,
      machineId,
      AbortSignal.any([signal, limit]),
      (now) => now.state === 'succeeded' || (now.state === 'waiting_for_person' && now.url !== null),
    ).catch((error: unknown) => {
      if (!limit.aborted || signal.aborted) throw error;
      throw new PolydevError('login_no_url', `the CLI showed no login page within ${seconds} s`);
    });
    const loginUrl = status.url === null ? null : checkedUrl(row.provider, status.url);
    await goOn(context, id, 'waiting_for_person', { loginUrl });
  });
  await recordStep(context.db, id, 'login_page', performance.now() - began);
};

const MAX_URL_CHARS = 8192;

/** The guest says where to sign in, and it may be somebody else's by now: only the provider's own page is shown. */
function checkedUrl(provider: ProviderId, said: string): string {
  const url = said.length <= MAX_URL_CHARS && URL.canParse(said) ? new URL(said) : undefined;
  const { findUrl } = providers[provider].login;
  if (url?.protocol === 'https:' && findUrl(url.href)?.href === url.href) return url.href;
  throw new PolydevError('login_no_url', `what the machine calls a login page is no page of ${provider}`);
}

/** Waits until the person has signed in, has denied it, or is too late. */
export const waitForPerson: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  if (WAY.indexOf(row.state) > WAY.indexOf('waiting_for_person')) return;
  const machineId = machineOf(row);
  await watched(context, { sessionId: id, expiresAt: row.expiresAt, machineId }, (signal) =>
    followLogin(context, machineId, signal, (status) => status.state === 'succeeded'),
  );
  await goOn(context, id, 'capturing');
  await recordStep(context.db, id, 'person', performance.now() - began);
};

/** Has the vault fetch, check, seal and store the credential. */
export const capture: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  if (WAY.indexOf(row.state) > WAY.indexOf('storing')) return;
  const machineId = machineOf(row);
  await watched(context, { sessionId: id, machineId }, async (signal) => {
    const { userId, provider, account, realm } = row;
    const stored = await withRetries(signal, () =>
      context.vault.capture(agentOf(context, machineId), { userId, provider, account, realm }, id, {
        signal,
        onChecked: () => goOn(context, id, 'storing'),
      }),
    );
    await goOn(context, id, 'installing', { credentialId: stored.credentialId });
  });
  await recordStep(context.db, id, 'capture', performance.now() - began);
};

/**
 * Finds the person's CLI machine of the same realm, or makes one, and brings it to `ready`. Meanwhile the browser
 * machine goes, with the credential in it: only one machine at a time holds one.
 */
export const prepareCliMachine: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  await watched(context, { sessionId: id }, async (signal) => {
    const results = await Promise.allSettled([
      bootCliMachine(context, row, signal),
      endBrowserMachine(context, machineOf(row), null, signal),
    ]);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  });
  await recordStep(context.db, id, 'cli_machine', performance.now() - began);
};

async function bootCliMachine(context: Context, row: SessionRow, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const machine = await request(context, row, 'cli');
    await patchSession(context.db, row.id, { cliMachineId: machine.id });
    try {
      await bootMachine(context, machine.id, signal);
      return;
    } catch (error) {
      if (signal.aborted && !context.closing.aborted) bootOnAlone(context, machine.id);
      // One that ended unseen while nobody used it is started again, once.
      const unseen = machine.state === 'ready' && PolydevError.from(error).code === 'machine_exited';
      if (!unseen || attempt > 1) throw error;
    }
  }
}

/**
 * The CLI machine is the person's, not the session's: the end of the session in the middle of its boot does not leave it
 * half started. What becomes of it is noted on it.
 */
function bootOnAlone(context: Context, id: MachineId): void {
  bootMachine(context, id, context.closing).catch((error: unknown) => {
    if (context.closing.aborted) return;
    context.log.warn({ machine: id, code: PolydevError.from(error).code }, 'a CLI machine did not start');
  });
}

/** Has the vault put the credential into the CLI machine. */
export const install: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  const { machine, credentialId } = await installTarget(context, row);
  await watched(context, { sessionId: id, machineId: machine.id }, async (signal) => {
    await clearOtherHolder(context, row, machine.id, signal);
    await withRetries(signal, () =>
      context.vault.install(agentOf(context, machine.id), machine, credentialId, signal),
    );
  });
  await recordStep(context.db, id, 'install', performance.now() - began);
};

const VERIFY_DEADLINE_MS = 60_000;

/** Asks the CLI in the CLI machine whether it is logged in, and completes the session with its answer. */
export const verify: LoginStep = async (context, id) => {
  const began = performance.now();
  const row = await readSession(context, id);
  if (row.state === 'completed') return;
  const { machine } = await installTarget(context, row);
  const { verify: command } = providers[row.provider];
  const answer = await watched(context, { sessionId: id, machineId: machine.id }, async (signal) => {
    const deadlineMs = VERIFY_DEADLINE_MS * (await slowdownOf(context, machine.id, signal));
    // The agent ends the command itself; an agent that hangs must not keep the session for ever.
    const limit = AbortSignal.timeout(deadlineMs);
    const either = AbortSignal.any([signal, limit]);
    return withRetries(either, async () => {
      const events = agentOf(context, machine.id).exec(
        { argv: [...command.argv], env: { ...command.env }, timeoutMs: deadlineMs / 2 },
        either,
      );
      return collect(events, 64 * 1024);
    }).catch((error: unknown) => {
      if (!limit.aborted || signal.aborted) throw error;
      throw new PolydevError(
        'credential_verify_failed',
        `${command.argv.join(' ')} in machine ${machine.id} did not end within ${deadlineMs / 1000} s`,
      );
    });
  });
  const said = withoutSecrets(answer.output).trim().slice(-500);
  if (answer.code !== 0 || !command.loggedIn(answer.output)) {
    throw new PolydevError(
      'credential_verify_failed',
      `${command.argv.join(' ')} in machine ${machine.id} ended with ${answer.code ?? 'no'} exit code`,
      { lines: said.split('\n').slice(-10) },
    );
  }
  await recordStep(context.db, id, 'verify', performance.now() - began, said);
  await goOn(context, id, 'completed', { verification: said });
};

/** Ends a session with a named error; one that has ended keeps its end. */
export async function endSession(context: Context, id: SessionId, error: ErrorReport): Promise<void> {
  const { state } = await readSession(context, id);
  if (isFinal(state)) return;
  const end =
    error.code === 'login_cancelled' ? 'cancelled' : error.code === 'login_expired' ? 'expired' : 'failed';
  try {
    await advanceSession(context.db, id, end, { error });
  } catch (refused) {
    if (!isFinal((await readSession(context, id)).state)) throw refused;
  }
}

/** Keeps what a browser machine can still tell, and destroys it. */
async function endBrowserMachine(
  context: Context,
  id: MachineId,
  error: PolydevError | null,
  signal: AbortSignal,
): Promise<void> {
  const machine = await readMachine(context, id);
  // A machine that failed to boot is preserved already; the person may have typed a password since: no picture.
  if (machine.state === 'ready' && machine.error === null) {
    await preserve(context, id, { error, screenshot: false });
  }
  await destroyMachine(context, id, signal);
}

/** Destroys the browser machine, unless it is kept for a while, and notes that nothing of the session runs any more. */
export async function cleanUp(context: Context, id: SessionId): Promise<void> {
  const began = performance.now();
  const machine = await findBrowserMachine(context.db, id);
  let problem: string | null = null;
  if (machine !== undefined) {
    const limit = AbortSignal.any([context.closing, AbortSignal.timeout(120_000)]);
    const session = await readSession(context, id);
    try {
      if (await keepForAWhile(context, session)) {
        problem = 'kept';
      } else {
        const error = session.error === null ? null : PolydevError.fromReport({ error: session.error });
        await endBrowserMachine(context, machine.id, error, limit);
      }
    } catch (error) {
      if (isConnectionLost(error)) throw error;
      // The reconciler goes on trying.
      const named = PolydevError.from(error);
      problem = named.code;
      context.log.error(
        { session: id, machine: machine.id, code: named.code },
        'a browser machine is left over',
      );
    }
  }
  if (context.closing.aborted) return;
  await markCleaned(context.db, id, performance.now() - began, problem);
}

/**
 * Follows the login until `until` holds. A broken stream is taken up again; the status is repeated by the agent.
 * @throws the login's own error when it failed; machine_unreachable when its streams break for half a minute
 */
async function followLogin(
  context: Context,
  machineId: MachineId,
  signal: AbortSignal,
  until: (status: LoginStatus) => boolean,
): Promise<LoginStatus> {
  return withRetries(signal, async () => {
    for await (const status of agentOf(context, machineId).loginEvents(signal)) {
      if (until(status)) return status;
      if (status.state === 'failed' || status.state === 'cancelled') {
        const fallback = status.state === 'cancelled' ? 'login_cancelled' : 'login_cli_failed';
        throw status.error === null
          ? new PolydevError(fallback, `the login in machine ${machineId} is ${status.state}`)
          : PolydevError.fromReport({ error: status.error });
      }
    }
    throw new PolydevError('machine_unreachable', `the login events of machine ${machineId} ended early`);
  });
}

async function installTarget(context: Context, row: SessionRow) {
  if (row.cliMachineId === null || row.credentialId === null) {
    throw new PolydevError('internal', `session ${row.id} has nothing to install`);
  }
  return { machine: await readMachine(context, row.cliMachineId), credentialId: row.credentialId };
}

const AWAKE_OR_ASLEEP: readonly MachineState[] = ['ready', 'hibernating', 'hibernated', 'resuming'];

/** Deletes the credential's files in another running machine that holds it; the CLI's logout would revoke it. */
async function clearOtherHolder(
  context: Context,
  row: SessionRow,
  target: MachineId,
  signal: AbortSignal,
): Promise<void> {
  if (row.credentialId === null) return;
  const credential = await getCredential(context.db, row.credentialId);
  const holder = credential?.holderMachineId;
  if (holder === undefined || holder === null || holder === target) return;
  const other = await getMachine(context.db, holder);
  if (other?.state === 'stopped') return;
  if (other !== undefined && AWAKE_OR_ASLEEP.includes(other.state)) {
    // Its files are in a home that sleeps with it.
    if (other.state !== 'ready') await bootMachine(context, holder, signal);
    await agentOf(context, holder).deleteCredential(row.provider, signal);
  }
  await releaseHolder(context.db, row.credentialId, holder);
}

async function collect(
  events: AsyncIterable<ExecEvent>,
  maxChars: number,
): Promise<{ output: string; code: number | null }> {
  let output = '';
  for await (const event of events) {
    if (event.type === 'exit') return { output, code: event.code };
    if (output.length < maxChars) output += event.text;
  }
  throw new PolydevError('machine_unreachable', 'the command gave no exit code');
}

/** What a CLI says goes to the database and to people: anything that could be a token is cut. */
function withoutSecrets(output: string): string {
  return output.replace(/[A-Za-z0-9_\-.+/=]{24,}/g, (found) => (/^[a-z./-]+$/.test(found) ? found : '[cut]'));
}
