import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { PolydevError } from '../../protocol/errors.ts';
import type { Display } from '../../protocol/machine.ts';
import type { AgentLog } from '../log.ts';
import { type Child, type Processes, readLines } from '../processes.ts';

export interface XServer {
  readonly child: Child;
  /** `:0` and the like. */
  readonly display: string;
}

/** Lines that Xvnc writes at every start and that say nothing. */
const NOISE =
  /^(Xvnc TigerVNC|Copyright|See https?:|Underlying X server|The X\.Org Foundation|Starting server|\[mi\] mieq: warning)/;

/**
 * Starts Xvnc and settles when it accepts connections. No TCP port: viewers come through `rfbSocket`, which lies in a
 * directory of the person. X itself listens on a local socket only, without a cookie: every process of the machine that
 * could reach it already belongs to the person or to the agent.
 */
export async function startXvnc(
  processes: Processes,
  log: AgentLog,
  display: Display,
  rfbSocket: string,
  deadlineMs: number,
): Promise<XServer> {
  // Xvnc as the person cannot make it with the owner it wants.
  mkdirSync('/tmp/.X11-unix', { recursive: true });
  if (processes.person.ids !== undefined) chmodSync('/tmp/.X11-unix', 0o1777);
  rmSync(rfbSocket, { force: true });
  const child = processes.start({
    argv: [
      'Xvnc',
      '-displayfd',
      '3',
      '-geometry',
      `${display.width}x${display.height}`,
      '-depth',
      '24',
      '-dpi',
      '96',
      '-noreset',
      '-nolisten',
      'tcp',
      '-SecurityTypes',
      'None',
      '-UseBlacklist=0',
      '-rfbport',
      '-1',
      '-rfbunixpath',
      rfbSocket,
      '-rfbunixmode',
      '0600',
      '-AlwaysShared',
      // Errors and what happens to the server, not every viewer's statistics.
      '-Log',
      '*:stderr:10',
      '-desktop',
      'Polydev',
      '-extension',
      'GLX',
    ],
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const say = (line: string) => {
    if (!NOISE.test(line.trim())) log.add('xvnc', line.trim());
  };
  readLines(child.process.stdout, say);
  readLines(child.process.stderr, say);
  try {
    return { child, display: `:${await displayNumber(child, deadlineMs)}` };
  } catch (cause) {
    await child.stop();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PolydevError('desktop_failed', `Xvnc: ${why}`, { cause, lines: log.last('xvnc', 20) });
  }
}

function displayNumber(child: Child, deadlineMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready within ${deadlineMs} ms`)), deadlineMs);
    void child.exited.then(({ code, signal }) =>
      reject(child.startError ?? new Error(`ended with ${signal ?? `code ${code}`} before it was ready`)),
    );
    let text = '';
    const pipe = child.process.stdio[3] as Readable | null | undefined;
    pipe?.on('error', reject);
    pipe?.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const number = /^(\d+)\s*\n/.exec(text)?.[1];
      if (number === undefined) return;
      clearTimeout(timer);
      resolve(number);
    });
    void child.exited.finally(() => clearTimeout(timer));
  });
}
