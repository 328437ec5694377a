/** exec/: one command of the person, its output as a stream of events. */
import { statSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { ExecEvent, ExecRequest } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { Processes } from '../processes.ts';
import { NdjsonResponse } from '../server/ndjson.ts';

const MAX_RUNNING = 32;
let running = 0;

/**
 * Runs `exec` and writes its events to `response`. The command's group is ended when the caller goes away or the time is
 * up; a program that does not exist exits with 127, as in a shell.
 */
export async function runExec(
  processes: Processes,
  exec: ExecRequest,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const cwd = path.resolve(processes.person.home, exec.cwd ?? '.');
  if (statSync(cwd, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new PolydevError('bad_request', 'cwd: no such directory');
  }
  if (running >= MAX_RUNNING) throw new PolydevError('rate_limited', `${MAX_RUNNING} commands run already`);
  running += 1;
  try {
    await run(processes, { ...exec, cwd }, response, signal);
  } finally {
    running -= 1;
  }
}

async function run(
  processes: Processes,
  exec: ExecRequest & { cwd: string },
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const child = processes.start({
    argv: exec.argv,
    cwd: exec.cwd,
    ...(exec.env === undefined ? {} : { env: exec.env }),
    stdio: [exec.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    void child.stop();
  }, exec.timeoutMs);
  const leave = () => void child.stop();
  signal.addEventListener('abort', leave, { once: true });
  // A program that ended may leave others behind that hold its output open.
  child.process.once('exit', () => child.signal('SIGTERM'));
  try {
    child.process.stdin?.on('error', () => undefined);
    child.process.stdin?.end(exec.stdin);
    const lines = new NdjsonResponse(response, signal);
    const send = (event: ExecEvent) => lines.write(event);
    await Promise.all([
      forward(child.process.stdout, (text) => send({ type: 'stdout', text })),
      forward(child.process.stderr, (text) => send({ type: 'stderr', text })),
    ]);
    const exit = await child.exited;
    if (child.startError !== undefined) {
      await send({ type: 'stderr', text: `${exec.argv[0]}: ${child.startError.message}\n` });
    }
    await send({ type: 'exit', code: exit.code, signal: exit.signal, timedOut });
    lines.end();
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', leave);
  }
}

/** Reads as fast as `send` takes it: what a slow reader has not fetched stays in the pipe, and the program waits. */
async function forward(stream: Readable | null, send: (text: string) => Promise<boolean>): Promise<void> {
  if (stream === null) return;
  const decoder = new StringDecoder('utf8');
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      const text = decoder.write(chunk);
      if (text !== '' && !(await send(text))) break;
    }
  } catch {
    // The program was ended; its exit says how.
  }
  const rest = decoder.end();
  if (rest !== '') await send(rest);
}
