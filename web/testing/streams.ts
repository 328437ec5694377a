/** What stands behind the fake API's streams: a real X server (TigerVNC's Xvnc) and a real shell on a real terminal. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawn as spawnPty } from '@lydell/node-pty';
import type { WebSocket } from 'ws';
import { TerminalControl } from '../../protocol/api.ts';

const X_SERVER = { program: 'Xvnc', debianPackage: 'tigervnc-standalone-server' };
const SHELL_WINDOW = { program: 'xterm', debianPackage: 'xterm' };

/** Debian packages that the live desktop's tests need and this machine lacks; empty: all there. */
export const missingForDesktop: readonly string[] = [X_SERVER, SHELL_WINDOW].flatMap(
  ({ program, debianPackage }) => (spawnSync('which', [program]).status === 0 ? [] : [debianPackage]),
);

export interface TestDesktop extends AsyncDisposable {
  /** Unix socket that speaks RFB. */
  readonly rfbSocket: string;
  /** The shell on the screen works in this directory. */
  readonly directory: string;
}

const START_MS = 10_000;

/** A real 1280x800 X server that listens on a unix socket only, with a full-screen shell in which Ctrl+V pastes. */
export async function startDesktop(): Promise<TestDesktop> {
  const directory = await mkdtemp(join(tmpdir(), 'polydev-desktop-'));
  const rfbSocket = join(directory, 'rfb.sock');
  const children: ChildProcess[] = [];
  const dispose = async () => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await Promise.race([exited, sleep(3_000).then(() => child.kill('SIGKILL'))]);
    }
    await rm(directory, { recursive: true, force: true });
  };
  try {
    // -displayfd: the server chooses a free display and says which on that descriptor.
    const flags = '-displayfd 3 -geometry 1280x800 -depth 24 -SecurityTypes None -nolisten tcp -rfbport -1';
    const server = spawn(
      X_SERVER.program,
      [...flags.split(' '), '-rfbunixpath', rfbSocket, '-AlwaysShared'],
      {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      },
    );
    children.push(server);
    const ready = server.stdio[3];
    if (ready === null || ready === undefined)
      throw new Error('Xvnc was started without its display descriptor');
    const [line] = await once(ready, 'data', { signal: AbortSignal.timeout(START_MS) });
    const paste = 'XTerm*VT100.translations: #override Ctrl<Key>v: insert-selection(CLIPBOARD)';
    const look = '-fa Monospace -fs 14 -bg white -fg black -geometry 130x40+0+0 -fullscreen'.split(' ');
    const shell = spawn(
      SHELL_WINDOW.program,
      [...look, '-xrm', paste, '-e', 'bash', '--norc', '--noprofile'],
      {
        cwd: directory,
        // As in a machine: whatever language the caller's environment speaks, or none.
        env: { ...process.env, LC_ALL: 'C.UTF-8', DISPLAY: `:${String(line).trim()}`, PS1: 'machine$ ' },
        stdio: 'ignore',
      },
    );
    children.push(shell);
    const deadline = Date.now() + START_MS;
    while (!existsSync(rfbSocket)) {
      if (Date.now() > deadline) throw new Error('Xvnc made no RFB socket');
      await sleep(20);
    }
    return { rfbSocket, directory, [Symbol.asyncDispose]: dispose };
  } catch (thrown) {
    await dispose();
    throw thrown;
  }
}

/** Carries RFB bytes between a page and an X server. */
export function bridgeDesktop(page: WebSocket, rfbSocket: string): void {
  const server = connect(rfbSocket);
  server.on('data', (bytes) => page.send(bytes));
  server.on('close', () => page.close());
  server.on('error', () => page.close(1011));
  page.on('message', (bytes: Buffer) => server.write(bytes));
  page.on('close', () => server.destroy());
}

/** A bash for each page: binary frames are its input, text frames its size. It ends with the connection. */
export function bridgeTerminal(page: WebSocket): void {
  const shell = spawnPty('bash', ['--norc', '--noprofile'], {
    cwd: tmpdir(),
    env: { PATH: process.env.PATH ?? '', PS1: '$ ', LANG: 'C.UTF-8', TERM: 'xterm-256color' },
  });
  let open = true;
  shell.onData((text) => page.send(Buffer.from(text)));
  shell.onExit(() => {
    if (open) page.close(1000);
    open = false;
  });
  page.on('message', (bytes: Buffer, binary: boolean) => {
    if (binary) return shell.write(bytes.toString());
    const { cols, rows } = TerminalControl.parse(JSON.parse(bytes.toString()));
    shell.resize(cols, rows);
  });
  page.on('close', () => {
    if (open) shell.kill();
    open = false;
  });
}
