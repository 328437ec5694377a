/** Plays a person on a session's live desktop, over the same WebSocket that the page uses. */
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createWebSocketStream, WebSocket } from 'ws';
import { Ticket } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import type { ProviderId, SessionId } from '../protocol/ids.ts';
import type { Person } from '../testkit/person/person.ts';
import { RfbClient } from '../testkit/person/rfb.ts';
import { signIn } from '../testkit/person/sign-in.ts';
import type { Api } from './api.ts';

export interface TestPerson {
  readonly email: string;
  readonly password: string;
  readonly consent: 'allow' | 'deny';
}

/**
 * More than a virtual machine without hardware virtualization needs on a busy host. What is certain to fail ends the session,
 * and with it the person's waiting; this only bounds what nobody knows.
 */
const PATIENCE = { firstPageMs: 300_000, stepMs: 120_000 } as const;

/** Where tests leave what they saw. */
const ARTIFACTS = path.join(import.meta.dirname, '../.artifacts');

/**
 * Opens the desktop with a ticket, signs in at the test identity provider by sight, and closes the desktop. Throws what `signIn` throws,
 * with the path of a picture of the screen where one may be taken.
 */
export async function signInOnDesktop(
  api: Api,
  session: SessionId,
  options: { provider: ProviderId; person: TestPerson; signal: AbortSignal; onStep(step: string): void },
): Promise<void> {
  const ticket = await api.request('POST', '/api/tickets', Ticket, {
    purpose: 'desktop',
    sessionId: session,
  });
  const url = new URL(ticket.webSocketPath, api.url);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const socket = new WebSocket(url, ['binary'], { handshakeTimeout: PATIENCE.stepMs });
  // The desktop speaks first, and its first words may come in one piece with the handshake: listening begins before that.
  const stream = createWebSocketStream(socket);
  // The desktop goes away with its machine; whoever waits for pixels is told by the RFB client.
  stream.on('error', () => {});
  await once(socket, 'open').catch((cause: Error) => {
    throw new PolydevError('machine_unreachable', `the live desktop did not open: ${cause.message}`, {
      cause,
    });
  });
  let person: Person | undefined;
  try {
    using rfb = await RfbClient.connect(stream, { deadlineMs: PATIENCE.stepMs, signal: options.signal });
    await signIn({
      rfb,
      provider: options.provider,
      ...options.person,
      ...PATIENCE,
      signal: options.signal,
      onStep: (step, _ms, who) => {
        person = who;
        options.onStep(step);
      },
    });
  } catch (thrown) {
    const error = PolydevError.from(thrown);
    const picture = options.signal.aborted ? undefined : await keepPicture(person, session);
    if (picture === undefined) throw error;
    throw new PolydevError(error.code, `${error.message}; its picture: ${picture}`, { cause: thrown });
  } finally {
    socket.terminate();
  }
}

/** Undefined where none may be taken: before the first page, and from the consent on. */
async function keepPicture(person: Person | undefined, session: SessionId): Promise<string | undefined> {
  try {
    const picture = person?.screenshot();
    if (picture === undefined) return undefined;
    const file = path.join(ARTIFACTS, `person-${session}.png`);
    await mkdir(ARTIFACTS, { recursive: true });
    await writeFile(file, picture);
    return file;
  } catch {
    return undefined;
  }
}
