import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allIdpHosts } from './hosts.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

let dir: string;
const running: ChildProcess[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'idp-main-'));
});
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

function start(...args: string[]) {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 30_000,
  });
  running.push(child);
  return child;
}

function get(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path, signal: AbortSignal.timeout(5_000) }, (answer) => resolve(text(answer)))
      .on('error', reject)
      .end();
  });
}

describe('the program', () => {
  it('says that it is ready in one line, shows itself on the control socket, and ends on SIGTERM', async () => {
    const control = join(dir, 'control');
    const state = join(dir, 'state');
    const child = start('--listen', '127.0.0.1', '--port', '0', '--state', state, '--control', control);
    const [line] = await once(createInterface({ input: child.stdout }), 'line');
    const ready = JSON.parse(line);
    expect(ready).toMatchObject({ ready: true, ca: join(state, 'ca.pem'), hosts: allIdpHosts() });
    expect(ready.port).toBeGreaterThan(0);
    expect(readFileSync(ready.ca, 'utf8')).toContain('BEGIN CERTIFICATE');
    expect(statSync(state).mode & 0o777).toBe(0o700);
    expect(statSync(control).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await get(control, '/health'))).toEqual(ready);
    expect(JSON.parse(await get(control, '/requests'))).toEqual([]);
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });

  it('says in one line why it cannot start', async () => {
    const child = start('--listen', '203.0.113.1', '--port', '0', '--state', join(dir, 'state'));
    const [output, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    expect(code).toBe(1);
    const { ready, error } = JSON.parse(output);
    expect(ready).toBe(false);
    expect(error.code).toBe('test_provider_failed');
    expect(error.message).toContain('EADDRNOTAVAIL');
  });

  it('explains its arguments', async () => {
    const child = start('--listen', '127.0.0.1', '--port', '70000', '--state', dir);
    const [output, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    expect([code, output]).toEqual([2, expect.stringContaining('usage:')]);
  });
});
