/**
 * channel/: the agent's HTTP server on a serial port, where the machine has no other channel to its host. The port stays
 * open for the life of the agent; when the host goes away, it is opened again for the next one.
 */
import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Multiplexer } from '../../protocol/channel/multiplexer.ts';
import { AGENT_PORT } from '../../protocol/machine.ts';
import type { AgentLog } from '../log.ts';
import { findSerialPort, openSerialPort } from './port.ts';

const RETRY_MS = 100;

/** Serves until `signal` aborts. Throws when the port cannot be opened the first time. */
export function serveSerial(
  where: { serial: string; mark: string },
  server: Server,
  log: AgentLog,
  signal: AbortSignal,
): void {
  const open = () => {
    const pipe = openSerialPort(findSerialPort(where.serial));
    const multiplexer = new Multiplexer({
      pipe,
      mark: Buffer.from(where.mark, 'hex'),
      accept: (port) => (port === AGENT_PORT ? (stream) => server.emit('connection', stream) : undefined),
    });
    return { closed: multiplexer.closed, end: pipe.end };
  };
  let link = open();
  signal.addEventListener('abort', () => link.end(), { once: true });
  void (async () => {
    for (;;) {
      await link.closed;
      link.end();
      if (signal.aborted) return;
      await sleep(RETRY_MS);
      try {
        link = open();
      } catch (error) {
        log.add('channel', error instanceof Error ? error.message : String(error));
      }
    }
  })();
}
