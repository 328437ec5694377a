/** The two WebSockets: a session's desktop and a machine's terminal. Both are opened with a ticket. */
import type { Duplex } from 'node:stream';
import type { FastifyBaseLogger } from 'fastify';
import type { WebSocket } from 'ws';
import { TerminalSize } from '../../protocol/agent.ts';
import { TerminalControl } from '../../protocol/api.ts';
import type { MachineId, SessionId } from '../../protocol/ids.ts';
import { isFinal, machineActions } from '../../protocol/lifecycles.ts';
import type { AuditLog, Caller } from '../api/caller.ts';
import { toPolydevError } from '../api/errors.ts';
import type { Services, Terminal } from '../services.ts';
import { bridge, CLOSE, closeSocket } from './bridge.ts';
import type { OpenStream, OpenStreams } from './watch.ts';

interface StreamContext {
  readonly services: Services;
  readonly audit: AuditLog;
  readonly openStreams: OpenStreams;
  readonly timing?: { readonly pingMs?: number };
}

const pings = (context: StreamContext) =>
  context.timing?.pingMs === undefined ? {} : { pingIntervalMs: context.timing.pingMs };

/** Relays the RFB bytes of a session's browser machine until the session is over. Never rejects. */
export async function relayDesktop(
  context: StreamContext,
  socket: WebSocket,
  log: FastifyBaseLogger,
  caller: Caller,
  id: SessionId,
): Promise<void> {
  const { logins, machines } = context.services;
  // Nothing may be lost while the machine is being reached.
  socket.pause();
  using stream = context.openStreams.open('desktop', caller, async () => {
    const session = await logins.get(id);
    return session === undefined || isFinal(session.state) ? 'the session is over' : undefined;
  });
  void endWithSession(context.services, id, stream, log);
  await relay(socket, log, { session: id }, async () => {
    const duplex = await machines.desktop(id);
    await audit(context.audit, duplex, caller, 'desktop.open', id);
    return bridge(socket, duplex, { signal: stream.signal, ...pings(context) });
  });
  stream.end(CLOSE.normal, 'closed');
}

/** The moment the session ends is an event; polling alone would show a dead desktop for seconds. */
async function endWithSession(
  services: Services,
  id: SessionId,
  stream: OpenStream,
  log: FastifyBaseLogger,
): Promise<void> {
  try {
    const last = (await services.logins.get(id))?.timeline.at(-1)?.seq ?? 0;
    for await (const event of services.logins.events(id, last, stream.signal)) {
      if (event.subject === 'session' && event.kind === 'state' && isFinalName(event.name)) break;
    }
    if (!stream.signal.aborted) stream.end(CLOSE.normal, 'the session is over');
  } catch (error) {
    if (!stream.signal.aborted) log.warn({ err: error }, 'the events of a watched session failed');
  }
}

function isFinalName(name: string): boolean {
  return name === 'completed' || name === 'failed' || name === 'cancelled' || name === 'expired';
}

/** Relays a new terminal of a CLI machine; starts the machine first when it is stopped. Never rejects. */
export async function relayTerminal(
  context: StreamContext,
  socket: WebSocket,
  log: FastifyBaseLogger,
  caller: Caller,
  id: MachineId,
  size: TerminalSize,
): Promise<void> {
  const { machines } = context.services;
  socket.pause();
  using stream = context.openStreams.open('terminal', caller, async () => {
    const machine = await machines.get(id);
    return machine !== undefined && machineActions(machine.kind, machine.state).includes('open_terminal')
      ? undefined
      : 'the machine is gone';
  });
  await relay(socket, log, { machine: id }, async () => {
    const terminal = await machines.terminal(id, size);
    try {
      await audit(context.audit, terminal.stream, caller, 'terminal.open', id);
      return await bridge(socket, terminal.stream, {
        ...pings(context),
        signal: stream.signal,
        onText: (text) => control(terminal, text, log),
      });
    } finally {
      await terminal.close().catch((error: unknown) => log.info({ err: error }, 'closing a terminal failed'));
    }
  });
}

/** @throws when the text is no TerminalControl */
function control(terminal: Terminal, text: string, log: FastifyBaseLogger): void {
  const { cols, rows } = TerminalControl.parse(JSON.parse(text));
  const size = TerminalSize.safeParse({ cols, rows });
  // A page that is being hidden or laid out may report a single row for a moment: nothing to end a shell for.
  if (!size.success) return;
  terminal
    .resize(size.data)
    .catch((error: unknown) => log.info({ err: error }, 'resizing a terminal failed'));
}

/** The row is written before the first byte is relayed: what cannot be audited is not opened. */
async function audit(
  log: AuditLog,
  duplex: Duplex,
  caller: Caller,
  action: string,
  target: string,
): Promise<void> {
  try {
    await log.record({ caller, action, target });
  } catch (error) {
    duplex.destroy();
    throw error;
  }
}

/** Runs a relay; a failure to reach the machine closes the socket with its error code, which a page can show. */
async function relay(
  socket: WebSocket,
  log: FastifyBaseLogger,
  subject: Record<string, string>,
  run: () => Promise<{ toPage: number; fromPage: number; reason: string }>,
): Promise<void> {
  try {
    log.info({ ...subject, ...(await run()) }, 'stream ended');
  } catch (thrown) {
    const error = toPolydevError(thrown);
    log.error({ err: error, code: error.code, ...subject }, 'stream failed');
    closeSocket(socket, CLOSE.failed, `${error.code}: ${error.message}`);
  }
}
