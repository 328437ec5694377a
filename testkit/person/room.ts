/**
 * The room of a sealed login: a private view of /etc and /run, the test identity provider on loopback under the
 * providers' names, and a desktop with the real X server, window manager and browser. For use inside fresh namespaces only.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { appendFile, chown, glob, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';
import { allIdpHosts } from '../idp/hosts.ts';

const exec = promisify(execFile);
const START_MS = 20_000;
const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';
const POLICIES = '/etc/chromium/policies/managed';

const LogLine = z.object({
  host: z.string(),
  method: z.string(),
  path: z.string(),
  status: z.number(),
  note: z.string().optional(),
});

/** Everything the room holds; a tmpfs that is gone with the namespace. */
export const ROOM = '/run/sealed';

/** Chromium and the CLI run as an ordinary user. */
export const PERSON_ID = { uid: 1000, gid: 1000 } as const;

/** Refuses to go on unless this network namespace has loopback and nothing else, then covers /run and /etc. */
export async function prepareRoom(home: string): Promise<void> {
  const { stdout } = await exec('ip', ['-json', 'link'], { timeout: START_MS });
  const links: { ifname: string }[] = JSON.parse(stdout);
  if (links.some(({ ifname }) => ifname !== 'lo'))
    throw new Error('not sealed: there are interfaces beside lo');
  await exec('ip', ['link', 'set', 'lo', 'up'], { timeout: START_MS });
  const mount = (...args: string[]) => exec('mount', args, { timeout: START_MS });
  await mount('-t', 'tmpfs', '-o', 'mode=0755', 'tmpfs', '/run');
  await mkdir(home, { recursive: true });
  await mkdir(`${ROOM}/upper`);
  await mkdir(`${ROOM}/work`);
  await mount(
    '-t',
    'overlay',
    '-o',
    `lowerdir=/etc,upperdir=${ROOM}/upper,workdir=${ROOM}/work`,
    'overlay',
    '/etc',
  );
  await chown(ROOM, PERSON_ID.uid, PERSON_ID.gid);
  await chown(home, PERSON_ID.uid, PERSON_ID.gid);
  await writeFile('/etc/hosts', `127.0.0.1 localhost ${allIdpHosts().join(' ')}\n`);
  await writeFile('/etc/resolv.conf', '');
}

/** A running child with a clean end. */
function child(process: ChildProcess): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      if (process.exitCode !== null || process.signalCode !== null) return;
      const ended = once(process, 'exit');
      process.kill('SIGTERM');
      const clock = setTimeout(() => process.kill('SIGKILL'), 3_000);
      await ended;
      clearTimeout(clock);
    },
  };
}

/** Starts the test identity provider as its own program and makes everything in the room trust it. */
export async function startProvider(
  canary: string,
): Promise<AsyncDisposable & { requests(): Promise<string[]> }> {
  const main = fileURLToPath(new URL('../idp/main.ts', import.meta.url));
  const args = [main, '--listen', '127.0.0.1', '--state', `${ROOM}/idp`, '--canary', canary];
  const process_ = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const log: string[] = [];
  const errors = createInterface({ input: process_.stderr }).on('line', (line) => log.push(line));
  const lines = createInterface({ input: process_.stdout });
  const [line] = await once(lines, 'line', { signal: AbortSignal.timeout(START_MS) });
  const { ca } = z.object({ ca: z.string() }).parse(JSON.parse(line));
  const pem = await readFile(ca, 'utf8');
  await appendFile(CA_BUNDLE, pem);
  await mkdir(POLICIES, { recursive: true });
  const der = new X509Certificate(pem).raw.toString('base64');
  await writeFile(
    `${POLICIES}/test.json`,
    JSON.stringify({ CACertificates: [der], PasswordManagerEnabled: false }),
  );
  const logged = once(errors, 'close');
  const running = child(process_);
  return {
    ...running,
    /** Stops the provider, so that every line is there, and tells what was asked of it. */
    async requests() {
      await running[Symbol.asyncDispose]();
      await logged;
      return log
        .map((text) => LogLine.parse(JSON.parse(text)))
        .filter(({ status }) => status !== 404)
        .map(({ method, host, path, status, note }) =>
          `${method} ${host}${path} ${status} ${note ?? ''}`.trim(),
        );
    },
  };
}

/** A desktop: `browse` opens Chromium, `socket` is the X server's VNC socket. */
export interface Desktop extends AsyncDisposable {
  socket: string;
  env: Record<string, string>;
  browse(url: string): Promise<void>;
}

/** Starts Xvnc (1280x800) and openbox; resolves when the X server accepts connections. */
export async function startDesktop(home: string): Promise<Desktop> {
  await using starting = new AsyncDisposableStack();
  const socket = `${ROOM}/vnc.sock`;
  const options = ['-geometry', '1280x800', '-depth', '24', '-SecurityTypes', 'None', '-rfbunixpath', socket];
  const quiet = ['-rfbport', '-1', '-nolisten', 'tcp', '-ac', '-displayfd', '3'];
  const xvnc = spawn('Xvnc', [...options, ...quiet], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] });
  starting.use(child(xvnc));
  const announced = xvnc.stdio[3];
  if (!announced) throw new Error('Xvnc has no display pipe');
  const [number] = await once(announced, 'data', { signal: AbortSignal.timeout(START_MS) });
  const env = {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: home,
    DISPLAY: `:${String(number).trim()}`,
    LANG: 'C.UTF-8',
  };
  const ordinary = {
    env,
    cwd: home,
    ...PERSON_ID,
    stdio: ['ignore', 'ignore', 'ignore'] as ['ignore', 'ignore', 'ignore'],
  };
  starting.use(child(spawn('openbox', [], ordinary)));
  while (!(await stat(socket).catch(() => undefined))) await sleep(20);
  const kept = starting.move();
  return {
    socket,
    env,
    async browse(url) {
      const flags = [
        '--no-first-run',
        '--no-default-browser-check',
        '--start-maximized',
        '--password-store=basic',
      ];
      const dir = `--user-data-dir=${home}/chromium`;
      kept.use(child(spawn('chromium', [...flags, dir, url], ordinary)));
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** The native codex program inside a CLI layer of the golden image, which is mounted in the room. */
export async function unpackCodex(layer: string): Promise<string> {
  const at = `${ROOM}/clis`;
  await mkdir(at);
  await exec('mount', ['-o', 'ro,loop', layer, at], { timeout: START_MS });
  const pattern = 'opt/polydev/clis/node_modules/@openai/codex-linux-*/vendor/*/bin/codex';
  for await (const found of glob(pattern, { cwd: at })) return `${at}/${found}`;
  throw new Error(`${layer} holds no ${pattern}`);
}

/** A command that was started; disposing it stops it. */
export interface Command extends AsyncDisposable {
  /** Both output streams, the last 20 kB, and the exit code; `null` when it was stopped or took too long. */
  ended: Promise<{ code: number | null; output: string }>;
}

/** Starts a command as another user; it is stopped after `deadlineMs`. */
export function startCommand(
  file: string,
  args: string[],
  options: { env: Record<string, string>; cwd: string; uid: number; gid: number; deadlineMs: number },
): Command {
  const { deadlineMs, ...rest } = options;
  const process_ = spawn(file, args, { ...rest, stdio: ['ignore', 'pipe', 'pipe'], timeout: deadlineMs });
  let output = '';
  for (const stream of [process_.stdout, process_.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-20_000);
    });
  }
  const ended = new Promise<{ code: number | null; output: string }>((resolve, reject) => {
    process_.on('error', reject);
    process_.on('close', (code) => resolve({ code, output }));
  });
  return { ended, ...child(process_) };
}
