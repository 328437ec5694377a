/**
 * channel/: the agent's HTTP server on a serial port, where the machine has no other channel to its host. The port stays
 * open for the life of the agent; when the host goes away, it is opened again for the next one.
 */
import { execFile } from 'node:child_process';
import type { Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Multiplexer } from '../../protocol/channel/multiplexer.ts';
import { AGENT_PORT, POWER_PORT } from '../../protocol/machine.ts';
import type { AgentLog } from '../log.ts';
import { findSerialPort, openSerialPort } from './port.ts';

const RETRY_MS = 100;

/** Ends the guest in order; a restart, since the hypervisor ends where the guest would start again. */
function endSystem(stream: Duplex, log: AgentLog): void {
  stream.end();
  execFile('systemctl', ['--no-block', 'reboot'], { timeout: 10_000 }, (error) => {
    if (error !== null) log.add('channel', `ending the system: ${error.message}`);
  });
}

export interface SerialChannel {
  /** Another mark from the next greeting on. */
  remark(mark: string): void;
}

/** Serves until `signal` aborts. Throws when the port cannot be opened the first time. */
export function serveSerial(
  where: { serial: string; mark: string },
  server: Server,
  log: AgentLog,
  signal: AbortSignal,
): SerialChannel {
  let mark = Buffer.from(where.mark, 'hex');
  const open = () => {
    const pipe = openSerialPort(findSerialPort(where.serial));
    const multiplexer = new Multiplexer({
      pipe,
      mark,
      accept: (port) => {
        if (port === AGENT_PORT) return (stream) => server.emit('connection', stream);
        if (port === POWER_PORT) return (stream) => endSystem(stream, log);
        return undefined;
      },
    });
    return { multiplexer, closed: multiplexer.closed, end: pipe.end };
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
  return {
    remark(next) {
      mark = Buffer.from(next, 'hex');
      link.multiplexer.remark(mark);
    },
  };
}
