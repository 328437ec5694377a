/** One HTTP/1.1 exchange over a connection that the caller makes; errors by name, nothing without a deadline. */
import http from 'node:http';
import type { Duplex } from 'node:stream';
import { type ErrorCode, PolydevError } from '../../protocol/errors.ts';

export interface Exchange {
  /** Makes the connection, or the path of a unix socket. */
  over: { socketPath: string } | { connect: (signal: AbortSignal) => Promise<Duplex> };
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: Buffer;
  /** Until the reply's head has come. A body that is streamed has its own end: the signal. */
  deadlineMs: number;
  signal?: AbortSignal | undefined;
  /** The error when nobody answers. */
  unreachable: ErrorCode;
}

/** Replies of at most this size are read whole. */
const MAX_BODY = 16 * 1024 * 1024;

/** Replies below 400 as they come; the others are thrown as the error they carry. */
export async function exchange(options: Exchange): Promise<http.IncomingMessage> {
  const result = await send(options, {});
  if ('upgraded' in result) throw new PolydevError(options.unreachable, 'unexpected change of protocol');
  return result.response;
}

/** Changes to a raw byte stream (`Upgrade: tcp`). */
export async function upgrade(options: Exchange): Promise<Duplex> {
  const result = await send(options, { connection: 'Upgrade', upgrade: 'tcp' });
  if ('upgraded' in result) return result.upgraded;
  result.response.resume();
  throw new PolydevError(options.unreachable, `${options.path}: the protocol was not changed`);
}

async function send(
  options: Exchange,
  extra: Record<string, string>,
): Promise<{ response: http.IncomingMessage } | { upgraded: Duplex }> {
  const { over, unreachable, signal, deadlineMs } = options;
  const where = `${options.method} ${options.path}`;
  const failed = (cause: unknown) => {
    if (cause instanceof PolydevError) return cause;
    if (signal?.aborted === true) return signal.reason;
    const why = cause instanceof Error ? cause.message : String(cause);
    return new PolydevError(unreachable, `${where}: ${why}`, { cause });
  };
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(new Error(`no answer within ${deadlineMs} ms`)), deadlineMs);
  const limit = signal === undefined ? deadline.signal : AbortSignal.any([signal, deadline.signal]);
  try {
    limit.throwIfAborted();
    const connection = 'connect' in over ? await over.connect(limit) : undefined;
    const reply = await new Promise<{ response: http.IncomingMessage } | { upgraded: Duplex }>(
      (resolve, reject) => {
        const request = http.request({
          ...('socketPath' in over
            ? { socketPath: over.socketPath }
            : { createConnection: () => connection }),
          host: 'localhost',
          method: options.method,
          path: options.path,
          headers: {
            ...options.headers,
            ...(options.body === undefined ? {} : { 'content-length': String(options.body.length) }),
            ...extra,
          },
        });
        const abort = () => request.destroy(asError(limit.reason));
        limit.addEventListener('abort', abort, { once: true });
        request.once('close', () => limit.removeEventListener('abort', abort));
        request.once('error', reject);
        request.once('response', (response) => {
          // From here on only the caller's signal ends it.
          limit.removeEventListener('abort', abort);
          const end = () => response.destroy(asError(signal?.reason));
          signal?.addEventListener('abort', end, { once: true });
          response.once('close', () => signal?.removeEventListener('abort', end));
          resolve({ response });
        });
        request.once('upgrade', (_response, socket, head) => {
          limit.removeEventListener('abort', abort);
          // Until its user listens, a connection that breaks must not end this process.
          socket.on('error', () => undefined);
          if (head.length > 0) socket.unshift(head);
          resolve({ upgraded: socket });
        });
        request.end(options.body);
      },
    );
    if ('response' in reply && (reply.response.statusCode ?? 500) >= 400) {
      const body = await readAll(reply.response, failed);
      throw PolydevError.fromReport(parseJson(body), unreachable);
    }
    return reply;
  } catch (error) {
    throw failed(error);
  } finally {
    clearTimeout(timer);
  }
}

/** The whole body, at most 16 MiB. */
export async function readAll(
  response: http.IncomingMessage,
  failed: (cause: unknown) => unknown = (cause) => cause,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => response.destroy(new Error('the body did not end within 30 s')), 30_000);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_BODY) throw new Error('the body is too large');
      chunks.push(chunk);
    }
  } catch (error) {
    throw failed(error);
  } finally {
    clearTimeout(timer);
  }
  const whole = Buffer.concat(chunks, size);
  // A body may be a credential: keep no second copy.
  for (const chunk of chunks) chunk.fill(0);
  return whole;
}

/** A body as JSON, or undefined when it is none. Never throws: what does not parse may be secret. */
export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason ?? 'ended'));
