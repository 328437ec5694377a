/** The service as its callers see it: HTTP over the socket, killed and started again, stopped. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { type ClientRequest, request as httpRequest } from 'node:http';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { buffer, json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostHealth, HostMachine } from '../protocol/host.ts';
import { newMachineId } from '../protocol/ids.ts';
import { AGENT_PORT } from '../protocol/machine.ts';
import { auditSettled } from './leaks.ts';
import { Leases } from './system/leases.ts';
import { type Bench, CHECKOUT, lacking, newInstance, newSpec, UPPER_CASE_AGENT } from './testing/fixture.ts';

const missing = lacking({ image: true });

describe.skipIf(missing !== undefined)(`host service (needs ${missing ?? 'nothing more'})`, () => {
  let bench: Bench;
  let child: ChildProcess | undefined;
  beforeEach(() => {
    bench = newInstance();
  });
  afterEach(async () => {
    if (child?.exitCode === null && child.signalCode === null) await end('SIGTERM');
    const left = await auditSettled(bench.config);
    bench[Symbol.dispose]();
    expect(left).toEqual([]);
  });

  const serve = async (): Promise<void> => {
    const script = join(CHECKOUT, 'host/testing/serve.ts');
    const argv = [script, JSON.stringify(bench.config), JSON.stringify(UPPER_CASE_AGENT)];
    child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    if (child.stdout === null) throw new Error('no output');
    await once(child.stdout, 'data', { signal: AbortSignal.timeout(60_000) });
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child === undefined) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  };
  const open = (method: string, path: string, headers: Record<string, string> = {}): ClientRequest =>
    httpRequest({
      socketPath: bench.config.socketPath,
      method,
      path,
      headers,
      signal: AbortSignal.timeout(60_000),
    });
  const call = async (
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; body: unknown }> => {
    const request = open(method, path, body === undefined ? {} : { 'content-type': 'application/json' });
    request.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = await once(request, 'response');
    const status: number = response.statusCode;
    return { status, body: status === 204 ? undefined : await json(response) };
  };
  const dial = async (id: string): Promise<Duplex> => {
    const request = open('GET', `/v1/machines/${id}/dial?port=${AGENT_PORT}`, {
      connection: 'upgrade',
      upgrade: 'tcp',
    });
    request.end();
    const [, socket] = (await once(request, 'upgrade')) as [unknown, Duplex, Buffer];
    return socket;
  };
  const shout = async (id: string, text: string): Promise<string> => {
    const channel = await dial(id);
    channel.end(text);
    return (await buffer(channel)).toString();
  };

  it('answers as the contract says, from start to evidence', async () => {
    await serve();
    expect(statSync(bench.config.socketPath).mode & 0o777).toBe(0o600);
    expect(HostHealth.parse((await call('GET', '/v1/health')).body).ok).toBe(true);
    const spec = newSpec();
    const path = `/v1/machines/${spec.id}`;
    const put = await call('PUT', path, spec);
    expect(put.status).toBe(200);
    const machine = HostMachine.parse(put.body);
    expect(machine).toMatchObject({ state: 'running', exit: null, address: expect.stringContaining('.') });
    expect(machine.stamps.map(({ checkpoint }) => checkpoint)).toEqual(['hypervisor', 'kernel', 'init']);
    expect(await shout(spec.id, 'over http')).toBe('OVER HTTP');
    expect((await call('GET', `${path}/exit`)).body).toEqual({ exit: null });
    const waiting = call('GET', `${path}/exit?wait=20`);
    expect((await call('DELETE', path)).status).toBe(204);
    expect((await waiting).body).toMatchObject({ exit: { signal: 'SIGKILL' } });
    expect((await call('GET', path)).status).toBe(404);
    expect((await call('DELETE', path)).status).toBe(204);
    const { body } = await call('GET', `/v1/evidence/${spec.id}`);
    expect(body).toMatchObject({
      files: expect.arrayContaining([expect.objectContaining({ name: 'console.log' })]),
    });
  });

  it('names what is wrong with a request', async () => {
    await serve();
    const spec = newSpec();
    const bad = await call('PUT', `/v1/machines/${spec.id}`, {
      ...spec,
      limits: { cpus: 0, memoryMiB: 256, pids: 64 },
    });
    expect(bad).toMatchObject({
      status: 400,
      body: { error: { code: 'bad_request', message: expect.stringContaining('limits.cpus') } },
    });
    const other = await call('PUT', `/v1/machines/${newMachineId()}`, spec);
    expect(other).toMatchObject({ status: 400, body: { error: { code: 'bad_request' } } });
    const image = await call('PUT', `/v1/machines/${spec.id}`, { ...spec, image: '0'.repeat(16) });
    expect(image).toMatchObject({ status: 503, body: { error: { code: 'image_missing' } } });
    const request = open('GET', `/v1/machines/${spec.id}/dial?port=8080`, {
      connection: 'upgrade',
      upgrade: 'tcp',
    });
    request.end();
    const [response] = await once(request, 'response');
    expect(response.statusCode).toBe(404);
    expect(await json(response)).toMatchObject({ error: { code: 'not_found' } });
    expect((await call('GET', '/v1/machines')).body).toEqual({ machines: [] });
  });

  it('goes on with its machines after it was killed, in both realms', async () => {
    await serve();
    const specs = [newSpec(), newSpec({ kind: 'cli', realm: 'test' })];
    const before = await Promise.all(specs.map((spec) => call('PUT', `/v1/machines/${spec.id}`, spec)));
    await end('SIGKILL');
    await serve();
    for (const [index, spec] of specs.entries()) {
      expect((await call('GET', `/v1/machines/${spec.id}`)).body).toEqual(before[index]?.body);
      expect(await shout(spec.id, 'still here')).toBe('STILL HERE');
      expect((await call('PUT', `/v1/machines/${spec.id}`, spec)).body).toEqual(before[index]?.body);
    }
  });

  it('starts no machine while the data directory has little space', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=200m', 'tmpfs', bench.config.dataDir]);
    try {
      await serve();
      const spec = newSpec();
      expect(await call('PUT', `/v1/machines/${spec.id}`, spec)).toMatchObject({
        status: 507,
        body: { error: { code: 'host_out_of_space', message: expect.stringContaining('MiB are free') } },
      });
      expect((await call('GET', '/v1/machines')).body).toEqual({ machines: [] });
      await end('SIGTERM');
    } finally {
      execFileSync('umount', ['--lazy', bench.config.dataDir]);
    }
  });

  it('takes back what a kill in the middle of starts left behind', async () => {
    await serve();
    const specs = Array.from({ length: 4 }, () => newSpec());
    const calls = specs.map((spec) => call('PUT', `/v1/machines/${spec.id}`, spec).catch(() => undefined));
    await sleep(60);
    await end('SIGKILL');
    await Promise.all(calls);
    await serve();
    for (const spec of specs) expect((await call('DELETE', `/v1/machines/${spec.id}`)).status).toBe(204);
    expect((await call('GET', '/v1/machines')).body).toEqual({ machines: [] });
    const ours = (await auditSettled(bench.config)).filter(({ name }) =>
      specs.some(({ id }) => name.includes(id) || name.includes(id.slice(2, 12))),
    );
    expect(ours).toEqual([]);
  });

  it('starts a browser machine whose start was cut off by a kill, asked again', async () => {
    await serve();
    const spec = newSpec();
    const begun = call('PUT', `/v1/machines/${spec.id}`, spec).catch(() => undefined);
    // Its record is there, its guest not yet.
    const record = join(bench.config.dataDir, 'machines', spec.id, 'record.json');
    await expect.poll(() => existsSync(record), { timeout: 20_000, interval: 1 }).toBe(true);
    await end('SIGKILL');
    await begun;
    await serve();
    expect((await call('PUT', `/v1/machines/${spec.id}`, spec)).body).toMatchObject({ state: 'running' });
    expect(await shout(spec.id, 'again')).toBe('AGAIN');
  });

  it('holds one claim on host ids, however often it is killed', async () => {
    const claims = async () => {
      const leases = await new Leases(join(bench.config.sharedDir, 'ids')).list();
      return leases.filter(({ owner }) => owner === bench.config.runDir).map(({ number }) => number);
    };
    await serve();
    const before = await claims();
    await end('SIGKILL');
    await serve();
    expect(before).toHaveLength(1);
    expect(await claims()).toEqual(before);
  });

  it('keeps the disk of a CLI machine over a full stop, and nothing of a browser machine', async () => {
    await serve();
    const [browser, cli] = [newSpec(), newSpec({ kind: 'cli' })];
    for (const spec of [browser, cli]) await call('PUT', `/v1/machines/${spec.id}`, spec);
    await end('SIGTERM');
    expect(await auditSettled(bench.config)).toEqual([]);
    const folder = (id: string): string => join(bench.config.dataDir, 'machines', id);
    expect([existsSync(folder(browser.id)), existsSync(join(folder(cli.id), 'disk.ext4'))]).toEqual([
      false,
      true,
    ]);
    await serve();
    expect((await call('GET', '/v1/machines')).body).toMatchObject({
      machines: [{ id: cli.id, state: 'stopped' }],
    });
    expect((await call('PUT', `/v1/machines/${cli.id}`, cli)).body).toMatchObject({ state: 'running' });
    expect(await shout(cli.id, 'again')).toBe('AGAIN');
  });
});
