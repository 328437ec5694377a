/**
 * data/: how pages get what they show: calls, live sessions, routes, plain words.
 * Replies are typed by the protocol and not validated again: the controller's schemas already did, and a
 * validator would triple what the page has to load.
 */
import type { AuthStart, Ticket, TicketRequest } from '../../protocol/api.ts';
import type { ErrorReport } from '../../protocol/errors.ts';
import type { SettingsPatch } from '../../protocol/settings.ts';
import { noteServerDate } from './clock.ts';

/** What an error panel shows. `code` is absent when no part of Polydev could say anything, e.g. nothing answers. */
export type Problem = Omit<ErrorReport, 'code' | 'fault'> & Partial<Pick<ErrorReport, 'code' | 'fault'>>;

/** A call that failed, with everything there is to tell the person. `status` 0: no answer at all. */
export class CallFailed extends Error {
  readonly problem: Problem;
  readonly status: number;

  constructor(status: number, problem: Problem, cause?: unknown) {
    super(problem.message, { cause });
    this.name = 'CallFailed';
    this.status = status;
    this.problem = problem;
  }
}

/** Any thrown value as something to show. */
export function problemOf(thrown: unknown): Problem {
  if (thrown instanceof CallFailed) return thrown.problem;
  return {
    message: thrown instanceof Error ? thrown.message : String(thrown),
    remedy: 'Reload the page; if it stays, report it with what the browser console says.',
  };
}

/** Longest wait for an answer. Starting and stopping machines answers only when it is done. */
const DEADLINE_MS = 60_000;

const signedOutListeners = new Set<() => void>();

/** Calls `listener` whenever a call finds that nobody is signed in. Returns the way to stop that. */
export function onSignedOut(listener: () => void): () => void {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

async function send(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
      credentials: 'same-origin',
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    const message = deadline.aborted
      ? `Polydev did not answer within ${DEADLINE_MS / 1000} s.`
      : 'Polydev does not answer.';
    const remedy =
      'Check that ./polydev up still runs and that this computer reaches it. The page tries again.';
    throw new CallFailed(0, { message, remedy }, cause);
  }
  noteServerDate(response.headers.get('date'));
  if (response.ok) return response;
  const failed = await failureOf(response);
  if (response.status === 401) for (const listener of signedOutListeners) listener();
  throw failed;
}

async function failureOf(response: Response): Promise<CallFailed> {
  const text = await response.text();
  try {
    const parsed: { error?: ErrorReport } = JSON.parse(text);
    if (parsed.error?.message !== undefined) return new CallFailed(response.status, parsed.error);
  } catch {
    // Not from Polydev: a proxy between, for example. What it said is shown below.
  }
  return new CallFailed(response.status, {
    message: `The answer was HTTP ${response.status}, and not from Polydev.`,
    remedy: 'Check what stands between this page and Polydev, for example a reverse proxy.',
    lines: text.split('\n').slice(0, 10),
  });
}

/** GET of JSON. Throws CallFailed. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send('GET', path, undefined, signal);
  return (await response.json()) as T;
}

/** GET of text/plain. Throws CallFailed. */
export async function getText(path: string, signal?: AbortSignal): Promise<string> {
  return (await send('GET', path, undefined, signal)).text();
}

/** POST; resolves to the JSON answer, or undefined when there is none. Throws CallFailed. */
export async function post<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const text = await (await send('POST', path, body, signal)).text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** PATCH of some settings. Throws CallFailed. */
export async function patch(path: string, body: SettingsPatch): Promise<void> {
  await send('PATCH', path, body);
}

/** DELETE. Throws CallFailed. */
export async function remove(path: string): Promise<void> {
  await send('DELETE', path, undefined);
}

/** Starts a login session; typed so that a page cannot send a field the API refuses. */
export const startSession = <T>(request: Pick<AuthStart, 'provider' | 'account' | 'realm'>) =>
  post<T>('/api/auth/start', request);

/** Gets a ticket and returns the address of its one stream. It must be opened within a minute. */
export async function streamUrl(request: TicketRequest, signal?: AbortSignal): Promise<string> {
  const ticket = await post<Ticket>('/api/tickets', request, signal);
  const url = new URL(ticket.webSocketPath, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}
