import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { newMachineId } from '../../protocol/ids.ts';
import { findProgram } from '../boot/cli.ts';

/**
 * The whole agent of a browser machine with the real Xvnc, openbox and Chromium, unprivileged and in a network of its
 * own that holds nothing but loopback.
 */
const run = promisify(execFile);
const MAIN = path.join(import.meta.dirname, '../main.ts');
const TOKEN = 'the-token-of-this-test';
const needed = ['Xvnc', 'openbox', 'chromium', 'curl', 'setpriv', 'nsenter'];
const lacking = [
  ...needed.filter((program) => findProgram(program, '/usr/local/bin:/usr/bin:/bin') === undefined),
  ...(process.getuid?.() === 0 && spawnSync('unshare', ['-n', 'true']).status === 0 ? [] : ['root']),
  // Unprivileged, the agent must be able to read itself and its Node.
  ...(spawnSync('setpriv', [
    '--reuid=1000',
    '--regid=1000',
    '--clear-groups',
    process.execPath,
    '--check',
    MAIN,
  ]).status === 0
    ? []
    : ['a checkout that other users can read']),
];

describe.skipIf(lacking.length > 0)(`desktop (lacking: ${lacking.join(', ')})`, () => {
  let agent: ChildProcess;
  let root: string;

  const curl = async (...args: string[]) => {
    const header = `Authorization: Bearer ${TOKEN}`;
    const argv = ['-t', String(agent.pid), '-n', 'curl', '-sN', '-H', header, ...args];
    return (await run('nsenter', argv, { timeout: 120_000 }).catch((error) => error)).stdout as string;
  };
  /** Programs of that name among the descendants of the agent. */
  const pidsOf = (name: string) => {
    const parents = new Map<string, { parent: string; comm: string }>();
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        const [, comm = '', parent = ''] =
          /\((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
        parents.set(pid, { parent, comm });
      } catch {
        // It has just ended.
      }
    }
    const isOurs = (pid: string): boolean => {
      const { parent } = parents.get(pid) ?? {};
      return parent !== undefined && (parent === String(agent.pid) || isOurs(parent));
    };
    return [...parents].flatMap(([pid, { comm }]) => (comm === name && isOurs(pid) ? [pid] : []));
  };

  beforeAll(() => {
    root = mkdtempSync(path.join(tmpdir(), 'polydev-desktop-'));
    chmodSync(root, 0o755);
    for (const name of ['home', 'home/.local', 'home/.local/bin', 'agent']) {
      mkdirSync(path.join(root, name));
      chownSync(path.join(root, name), 1000, 1000);
    }
    // The boot asks for the CLI, which no test of the desktop starts.
    writeFileSync(path.join(root, 'home/.local/bin/codex'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const config = {
      version: 1,
      machineId: newMachineId(),
      kind: 'browser',
      realm: 'test',
      hostname: 'desktop-test',
      display: { width: 1024, height: 700 },
      agentTokenHash: createHash('sha256').update(TOKEN).digest('hex'),
      listen: { port: 8080 },
    };
    writeFileSync(path.join(root, 'config.json'), JSON.stringify(config));
    const drop = ['setpriv', '--reuid=1000', '--regid=1000', '--clear-groups', '--'];
    const command = [process.execPath, MAIN, `${root}/config.json`, `${root}/agent`, `${root}/home`];
    agent = spawn('unshare', ['-n', 'sh', '-c', 'ip link set lo up; exec "$@"', 'sh', ...drop, ...command], {
      stdio: ['ignore', 'ignore', 'ignore'],
    });
  });
  afterAll(async () => {
    const before = ['chromium', 'Xvnc', 'openbox'].flatMap(pidsOf);
    const ended = new Promise((resolve) => agent.once('exit', resolve));
    agent.kill('SIGTERM');
    await ended;
    // What was killed ends in its own time; a zombie, whose command line is empty, has ended.
    const runs = (pid: string) =>
      existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`).length > 0;
    await vi.waitFor(() => expect(before.filter(runs)).toEqual([]), { timeout: 10_000 });
    rmSync(root, { recursive: true, force: true, maxRetries: 5 });
  });

  it('reaches the screen', async () => {
    const stamped = async () => (await curl('http://127.0.0.1:8080/health')).includes('"browser"');
    await expect.poll(stamped, { timeout: 50_000, interval: 200 }).toBe(true);
  });

  it('is served to viewers', async () => {
    const upgrade = ['-H', 'Connection: Upgrade', '-H', 'Upgrade: tcp', '--max-time', '6'];
    expect(await curl(...upgrade, 'http://127.0.0.1:8080/v1/desktop/vnc')).toContain('RFB 003.008');
  });

  it('has a browser with its sandbox that nothing can drive', async () => {
    const browsers = pidsOf('chromium').map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
    expect(browsers.length).toBeGreaterThan(1);
    expect(browsers.join('\n')).not.toMatch(/remote-debugging|enable-automation|no-sandbox/);
    // A process of a page tells what it is, and gives up its rights, a moment after it is there.
    await vi.waitFor(
      () => {
        const renderers = pidsOf('chromium').filter((pid) =>
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--type=renderer'),
        );
        expect(renderers.length).toBeGreaterThan(0);
        for (const pid of renderers)
          expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/Seccomp:\t2/);
      },
      { timeout: 20_000 },
    );
  });

  it('starts a browser that crashed again', async () => {
    const main = () =>
      pidsOf('chromium').find((pid) => !readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--type='));
    const first = main();
    process.kill(Number(first), 'SIGKILL');
    const another = () => {
      const now = main();
      return now !== undefined && now !== first;
    };
    await expect.poll(another, { timeout: 30_000 }).toBe(true);
    expect(await curl('http://127.0.0.1:8080/v1/log')).toContain('Chromium ended with SIGKILL');
  });
});
