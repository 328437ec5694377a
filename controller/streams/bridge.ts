/**
 * streams/: what the controller relays between a person's page and a machine: desktop, terminal, events.
 *
 * This file joins a WebSocket and a byte stream: bytes both ways with backpressure, and one ending for both.
 */
import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';

/** Bytes that may wait in one direction before the other side is asked to pause. */
const HIGH_WATER = 262_144;
const LOW_WATER = 65_536;
const PING_INTERVAL_MS = 15_000;
/** A peer that does not answer the closing handshake is cut off after this. */
const CLOSE_GRACE_MS = 1_000;

/** WebSocket close codes used here (RFC 6455, section 7.4.1). */
export const CLOSE = {
  normal: 1000,
  goingAway: 1001,
  notSupported: 1003,
  policy: 1008,
  failed: 1011,
} as const;

interface BridgeOptions {
  /** Ends the stream from outside; its reason is `{code, text}` or anything, which reads as 1001. */
  readonly signal: AbortSignal;
  /** Text frames of the page; absent: a text frame ends the stream. Throwing ends the stream too. */
  readonly onText?: (text: string) => void;
  readonly pingIntervalMs?: number;
}

/** Why a stream is ended from outside: a close code and a reason of at most 123 bytes. */
export class StreamEnd extends Error {
  readonly code: number;
  constructor(code: number, reason: string) {
    super(reason);
    this.name = 'StreamEnd';
    this.code = code;
  }
}

function toBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

/** A close reason may have 123 bytes; one that is longer would throw. */
export function closeSocket(socket: WebSocket, code: number, reason: string): void {
  let text = reason;
  while (Buffer.byteLength(text) > 123) text = text.slice(0, -1);
  // A paused socket would never read the peer's answer to the closing handshake.
  if (socket.isPaused) socket.resume();
  socket.close(code, text);
  const timer = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS);
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Relays until either side ends, a ping goes unanswered, or the signal; then both sides are closed.
 * Takes the ownership of both. Resolves, never rejects, when both are done, with the bytes relayed and why it ended.
 */
export function bridge(
  socket: WebSocket,
  stream: Duplex,
  options: BridgeOptions,
): Promise<{ toPage: number; fromPage: number; reason: string }> {
  const { promise, resolve } = Promise.withResolvers<{ toPage: number; fromPage: number; reason: string }>();
  let toPage = 0;
  let fromPage = 0;
  let answered = true;
  let ending: string | undefined;

  /** `code` undefined: the peer is known to be dead, so there is no closing handshake. */
  const end = (code: number | undefined, reason: string) => {
    if (ending !== undefined) return;
    ending = reason;
    clearInterval(pings);
    options.signal.removeEventListener('abort', onAbort);
    // Destroying instead of ending: after this nobody reads what the machine would still say.
    stream.destroy();
    if (socket.readyState === socket.CLOSED) done();
    else if (code === undefined) socket.terminate();
    else closeSocket(socket, code, reason);
  };
  const done = () => resolve({ toPage, fromPage, reason: ending ?? 'closed' });

  const onAbort = () => {
    const reason: unknown = options.signal.reason;
    if (reason instanceof StreamEnd) end(reason.code, reason.message);
    else end(CLOSE.goingAway, 'the stream was ended');
  };

  stream.on('data', (chunk: Buffer) => {
    toPage += chunk.length;
    socket.send(chunk, { binary: true }, () => {
      if (!stream.isPaused()) return;
      // A slow page gets its ping late, behind what waits; that it takes something shows that it lives.
      answered = true;
      if (socket.bufferedAmount <= LOW_WATER) stream.resume();
    });
    if (socket.bufferedAmount > HIGH_WATER) stream.pause();
  });
  stream.on('end', () => end(CLOSE.normal, 'the machine closed the stream'));
  stream.on('error', (error) => end(CLOSE.failed, `the machine's side failed: ${error.message}`));
  stream.on('close', () => end(CLOSE.normal, 'the machine closed the stream'));
  stream.on('drain', () => {
    if (ending === undefined && socket.isPaused) socket.resume();
  });

  socket.on('message', (data, isBinary) => {
    if (ending !== undefined) return;
    if (!isBinary) {
      if (options.onText === undefined) return end(CLOSE.notSupported, 'only binary frames are understood');
      try {
        options.onText(toBuffer(data).toString('utf8'));
      } catch {
        end(CLOSE.policy, 'a control message was not understood');
      }
      return;
    }
    const bytes = toBuffer(data);
    fromPage += bytes.length;
    if (!stream.write(bytes)) socket.pause();
  });
  socket.on('pong', () => {
    answered = true;
  });
  socket.on('error', () => end(CLOSE.failed, 'the page sent what is not a valid frame'));
  socket.on('close', () => {
    if (ending === undefined) end(CLOSE.normal, 'the page closed the stream');
    done();
  });

  const pings = setInterval(() => {
    // While the socket is paused for backpressure no pong can be read, so its absence proves nothing.
    if (!answered && !socket.isPaused) return end(undefined, 'the page does not answer');
    if (!socket.isPaused) answered = false;
    socket.ping();
  }, options.pingIntervalMs ?? PING_INTERVAL_MS);
  pings.unref();

  options.signal.addEventListener('abort', onAbort);
  if (socket.readyState >= socket.CLOSING) end(CLOSE.normal, 'the page closed the stream');
  else if (options.signal.aborted) onAbort();
  else if (stream.destroyed) end(CLOSE.normal, 'the machine closed the stream');
  else if (socket.isPaused) socket.resume();
  return promise;
}
