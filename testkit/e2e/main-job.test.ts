/** The main job on real parts: genuine Codex, real Chromium, real machines; only the provider is the test one. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readSettings, settingsPaths } from '../../cli/settings.ts';
import { Credential, Machine, Session } from '../../protocol/api.ts';
import { isFinal } from '../../protocol/lifecycles.ts';
import { emailFor } from '../idp/people.ts';
import { placesWith } from './canary.ts';
import { type Installation, install } from './installation.ts';
import { NO_TRACES, tracesOf } from './leaks.ts';

const lines = (text: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => z.looseObject({ type: z.string() }).parse(JSON.parse(line)));

const Credentials = z.object({ credentials: z.array(Credential) });

describe('a login session from the terminal', () => {
  let polydev: Installation;
  beforeAll(async () => {
    polydev = await install();
  });
  afterAll(async () => {
    await polydev?.[Symbol.asyncDispose]();
  });

  const startSession = (body: Record<string, unknown> = {}) =>
    polydev.api('POST', '/api/auth/start', Session, { provider: 'codex', realm: 'test', ...body });

  const browserMachines = async () =>
    (await polydev.machines()).filter((m) => m.kind === 'browser' && m.state !== 'destroyed');

  it('connects Codex: signs in by sight, stores, installs, and the CLI in its machine is logged in', async () => {
    const run = await polydev.polydev(['connect', 'codex', '--test-idp', '--json']);
    expect(run.exitCode, run.stderr + run.stdout).toBe(0);
    const said = lines(run.stdout);
    const states = said
      .filter((l) => l.type === 'event' && l.kind === 'state' && l.subject === 'session')
      .map((l) => l.name);
    expect(states).toEqual([
      'queued',
      'preparing',
      'waiting_for_person',
      'capturing',
      'storing',
      'installing',
      'completed',
    ]);
    expect(said.at(-1)).toMatchObject({
      type: 'completed',
      credential: { email: 'ada@polydev.test' },
      verification: expect.stringContaining('Logged in using ChatGPT'),
    });
    expect(await browserMachines()).toEqual([]);
  });

  it('keeps the plaintext in the CLI machine and nowhere else', async () => {
    const machine = (await polydev.machines()).find((m) => m.kind === 'cli' && m.state === 'ready');
    expect(machine).toBeDefined();
    const hostData = settingsPaths(readSettings({ data: polydev.dataDir })).hostData;
    const machineDir = path.join(hostData, 'machines', machine?.id ?? '');
    const disk = path.join(machineDir, 'disk');
    const authFile = path.join(disk, 'upper/home/person/.codex/auth.json');
    const auth = z
      .object({
        tokens: z.object({ access_token: z.string(), refresh_token: z.string(), id_token: z.string() }),
      })
      .parse(JSON.parse(await readFile(authFile, 'utf8')));
    const secrets = Object.values(auth.tokens).map((token) => token.split('.').at(-1) ?? token);
    expect(secrets.every((s) => s.length >= 20)).toBe(true);
    // The machine's disk is a mount of its own, which the search of the data directory does not enter.
    const places = await placesWith(secrets, [polydev.dataDir, disk, '/run/polydev']);
    // The identity provider of the test keeps what it issued; it stands for the provider's own servers.
    const ours = places.filter((p) => !p.includes('/idp') && p !== path.join(machineDir, 'disk.ext4'));
    expect(ours).toEqual([authFile]);
  });

  it('connects again and again into the same CLI machine, one live holder per credential', async () => {
    const before = (await polydev.machines()).filter((m) => m.kind === 'cli').map((m) => m.id);
    const run = await polydev.polydev(['connect', 'codex', '--test-idp', '--json']);
    expect(run.exitCode, run.stderr + run.stdout).toBe(0);
    const after = (await polydev.machines())
      .filter((m) => m.kind === 'cli' && m.state === 'ready')
      .map((m) => m.id);
    expect(after).toEqual(before);
    const { credentials } = await polydev.api('GET', '/api/credentials', Credentials);
    expect(credentials).toHaveLength(1);
    expect(credentials[0]).toMatchObject({ holderMachineId: after[0], version: 2 });
  });

  it('runs three people at the same time', async () => {
    const runs = await Promise.all(
      ['ann', 'bob', 'cleo'].map((user) =>
        polydev.polydev([
          'connect',
          'codex',
          '--test-idp',
          '--json',
          '--user',
          user,
          '--email',
          `${user}@polydev.test`,
        ]),
      ),
    );
    for (const run of runs) expect(run.exitCode, run.stderr + run.stdout).toBe(0);
    const verified = runs.map((run) =>
      z.looseObject({ credential: z.object({ email: z.string() }) }).parse(lines(run.stdout).at(-1)),
    );
    expect(verified.map((v) => v.credential.email)).toEqual([
      'ann@polydev.test',
      'bob@polydev.test',
      'cleo@polydev.test',
    ]);
  });

  it.each([
    ['denied consent', ['--deny'], 'login_denied'],
    ['a wrong state', ['--email', emailFor('wrong-state')], 'login_rejected'],
    [
      'a credential without refresh token',
      ['--email', emailFor('no-refresh')],
      /credential_incomplete|login_cli_failed/,
    ],
  ])('names %s', async (_name, args, code) => {
    const run = await polydev.polydev([
      'connect',
      'codex',
      '--test-idp',
      '--json',
      '--user',
      'faulty',
      ...args,
    ]);
    expect(run.exitCode).toBe(1);
    expect(run.stderr).toMatch(code);
    expect(await browserMachines()).toEqual([]);
  });

  it('expires when nobody comes, machine gone, evidence kept', async () => {
    const session = await startSession({ userId: 'nobody', expiresInSeconds: 6 });
    const ended = await polydev.sessionUntil(session.id, (s) => isFinal(s.state), 60);
    expect(ended).toMatchObject({ state: 'expired', error: { code: 'login_expired' } });
    const machine = await polydev.api('GET', `/api/machines/${ended.browserMachineId}`, Machine);
    await expect.poll(browserMachines, { timeout: 20_000 }).toEqual([]);
    const console = await fetch(`${polydev.url}/api/machines/${machine.id}/console`, {
      headers: await keyHeader(),
    });
    expect(console.status).toBe(200);
    expect((await console.text()).length).toBeGreaterThan(0);
  });

  it.each(['queued', 'preparing', 'waiting_for_person'] as const)('is cancelled while %s', async (state) => {
    const session = await startSession({ userId: `cancel-${state.replaceAll('_', '-')}` });
    const reached = await polydev.sessionUntil(
      session.id,
      (s) => s.state === state || state === 'queued',
      60,
    );
    expect(isFinal(reached.state)).toBe(false);
    await polydev.api('DELETE', `/api/auth/session/${session.id}`, Session);
    const ended = await polydev.sessionUntil(session.id, (s) => isFinal(s.state), 30);
    expect(ended).toMatchObject({ state: 'cancelled', error: { code: 'login_cancelled' } });
    await expect.poll(browserMachines, { timeout: 20_000 }).toEqual([]);
  });

  it('goes on after the controller was killed while it waited for the person', async () => {
    const session = await startSession({ userId: 'killed', expiresInSeconds: 120 });
    await polydev.sessionUntil(session.id, (s) => s.state === 'waiting_for_person', 60);
    process.kill(await polydev.pidOf('controller/main.ts'), 'SIGKILL');
    const back = await polydev.sessionUntil(session.id, () => true, 60);
    expect(back.state).toBe('waiting_for_person');
    await polydev.api('DELETE', `/api/auth/session/${session.id}`, Session);
    const ended = await polydev.sessionUntil(session.id, (s) => isFinal(s.state), 30);
    expect(ended.state).toBe('cancelled');
    await expect.poll(browserMachines, { timeout: 20_000 }).toEqual([]);
  });

  it('ends a session that was killed while preparing, completed or by name, and leaks nothing', async () => {
    const session = await startSession({ userId: 'killed-early', expiresInSeconds: 20 });
    await polydev.sessionUntil(session.id, (s) => s.state === 'preparing', 30);
    process.kill(await polydev.pidOf('controller/main.ts'), 'SIGKILL');
    const ended = await polydev.sessionUntil(session.id, (s) => isFinal(s.state), 90);
    expect(isFinal(ended.state)).toBe(true);
    expect(ended.error?.code ?? 'completed').toMatch(/login_expired|controller_restarted|machine_|completed/);
    await expect.poll(browserMachines, { timeout: 20_000 }).toEqual([]);
  });

  it('removes the CLI machines, and stopping leaves no process, mount, namespace, interface or control group', async () => {
    const run = await polydev.polydev(['machines', 'rm', '--all']);
    expect(run.exitCode, run.stderr).toBe(0);
    expect((await polydev.machines()).filter((m) => m.state !== 'destroyed')).toEqual([]);
    await polydev.stop();
    expect(await tracesOf([polydev.instance, polydev.dataDir])).toEqual(NO_TRACES);
    expect(await readdir('/run/polydev')).not.toContain(polydev.instance);
  });

  const keyHeader = async () => ({
    authorization: `Bearer ${(await readFile(settingsPaths(readSettings({ data: polydev.dataDir })).apiKey, 'utf8')).trim()}`,
  });
});
