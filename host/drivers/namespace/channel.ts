/** The channel to a guest: a listening socket the guest inherits, so that no path it could write to is ever trusted. */
import { closeSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { PolydevError } from '../../../protocol/errors.ts';
import { AGENT_PORT } from '../../../protocol/machine.ts';
import { listenUnix } from '../../system/syscalls.ts';

const BACKLOG = 128;
const CONNECT_TIMEOUT_MS = 5000;

/** Makes the socket at `path`; the returned descriptor is for the guest, the caller closes its copy. */
export function openChannel(path: string): number {
  rmSync(path, { force: true });
  return listenUnix(path, BACKLOG);
}

export const closeChannel = (descriptor: number): void => closeSync(descriptor);

/** Connects. Before the agent has booted, the connection waits in the socket's queue. Throws `machine_unreachable`. */
export async function dialChannel(path: string, port: number, signal: AbortSignal): Promise<Duplex> {
  if (port !== AGENT_PORT) {
    throw new PolydevError(
      'machine_unreachable',
      `this driver has a channel to port ${AGENT_PORT} only, not ${port}`,
    );
  }
  const socket = createConnection({ path, allowHalfOpen: true });
  return new Promise<Duplex>((resolve, reject) => {
    const fail = (why: string, cause?: unknown): void => {
      socket.destroy();
      reject(new PolydevError('machine_unreachable', `channel to the guest: ${why}`, { cause }));
    };
    const timer = setTimeout(() => fail(`no connection after ${CONNECT_TIMEOUT_MS} ms`), CONNECT_TIMEOUT_MS);
    const aborted = (): void => fail('aborted', signal.reason);
    const settle = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
    };
    if (signal.aborted) return aborted();
    signal.addEventListener('abort', aborted, { once: true });
    socket.once('error', (error) => {
      settle();
      fail(error.message, error);
    });
    socket.once('connect', () => {
      settle();
      socket.removeAllListeners('error');
      resolve(socket);
    });
  });
}
