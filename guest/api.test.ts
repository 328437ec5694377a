import { createHash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentClock, AgentHealth, ExecEvent, WokeReply } from '../protocol/agent.ts';
import { PolydevError } from '../protocol/errors.ts';
import { newMachineId } from '../protocol/ids.ts';
import { asPerson } from './person.ts';
import { startAgent } from './testing/agent.ts';
import { Fixture } from './testing/fixture.ts';

let fixture: Fixture;
let agent: Awaited<ReturnType<typeof startAgent>>;
beforeEach(async () => {
  fixture = new Fixture();
  agent = await startAgent(fixture);
});
afterEach(async () => {
  await agent[Symbol.asyncDispose]();
  await fixture[Symbol.asyncDispose]();
});

const events = async (response: Response) =>
  (await response.text())
    .trimEnd()
    .split('\n')
    .map((line) => ExecEvent.parse(JSON.parse(line)));
const code = async (response: Response) => PolydevError.fromReport(await response.json()).code;

describe('calls', () => {
  it.each([
    ['no header', undefined],
    ['another token', 'Bearer wrong'],
    ['another scheme', 'Basic the-token-of-this-test'],
    ['the bare token', 'the-token-of-this-test'],
    ['an empty token', 'Bearer '],
  ])('refuse %s', async (_name, authorization) => {
    const response = await fetch(`${agent.origin}/health`, {
      headers: authorization === undefined ? {} : { authorization },
    });
    expect(response.status).toBe(401);
    expect(await code(response)).toBe('unauthenticated');
  });

  it('give the time after a sleep, and take another token from then on', async () => {
    const body = { time: new Date().toISOString(), entropyBase64: randomBytes(32).toString('base64') };
    const reply = WokeReply.parse(await (await agent.call('POST', '/v1/woke', body)).json());
    expect(Math.abs(reply.aheadMs)).toBeLessThan(30_000);
    expect(reply).toMatchObject({ clockSet: false, reseeded: false });
    const claim = { ...body, agentTokenHash: createHash('sha256').update('another').digest('hex') };
    expect((await agent.call('POST', '/v1/woke', claim)).status).toBe(200);
    expect((await agent.call('GET', '/health')).status).toBe(401);
    const headers = { authorization: 'Bearer another' };
    expect((await fetch(`${agent.origin}/health`, { headers })).status).toBe(200);
  });

  it('tell of a clock that only goes on', async () => {
    const read = async () => AgentClock.parse(await (await agent.call('GET', '/v1/clock')).json()).uptimeMs;
    const began = performance.now();
    const first = await read();
    const passed = (await read()) - first;
    expect(passed).toBeGreaterThan(0);
    expect(passed).toBeLessThanOrEqual(performance.now() - began);
  });

  it('refuse to make another machine of one that is no copy', async () => {
    const config = {
      ...{ version: 1, machineId: newMachineId(), kind: 'cli', realm: 'test', hostname: 'other' },
      ...{ display: { width: 1280, height: 800 }, agentTokenHash: '00', listen: { port: 0 } },
    };
    const gateway = { address: '10.0.0.1', mac: '02:00:00:00:00:01' };
    const link = { address: '10.0.0.2', mac: '02:00:00:00:00:02', gateway, networkd: '' };
    const reply = await agent.call('POST', '/v1/become', { config, link });
    expect(await code(reply)).toBe('conflict');
    expect((await agent.call('GET', '/health')).status).toBe(200);
  });

  it('refuse a stream without the token', async () => {
    expect(await agent.upgrade('/v1/terminals/x/stream', 'Bearer wrong')).toBe(401);
  });

  it.each([
    ['GET', '/', 'not_found'],
    ['POST', '/health', 'not_found'],
    ['GET', '/v1/credentials/unknown', 'not_found'],
    ['GET', '/v1/credentials/%ff', 'not_found'],
    ['GET', '/v1/login', 'not_found'],
    ['GET', '/v1/journal', 'not_found'],
    ['DELETE', '/v1/terminals/none', 'not_found'],
  ])('%s %s is %s', async (method, target, expected) => {
    expect(await code(await agent.call(method, target))).toBe(expected);
  });

  it.each([
    ['no JSON', '{"argv":'],
    ['another shape', { argv: [], timeoutMs: 1 }],
    ['unknown fields', { argv: ['true'], timeoutMs: 1_000, shell: true }],
    ['far too much', 'x'.repeat(5 * 1024 * 1024)],
  ])('refuse %s', async (_name, body) => {
    const response = await agent.call('POST', '/v1/exec', body);
    expect(response.status).toBe(400);
    expect(await code(response)).toBe('bad_request');
  });

  it('health and boot follow the checklist', async () => {
    const boot = await agent.call('GET', '/v1/boot');
    const health = async () => AgentHealth.parse(await (await agent.call('GET', '/health')).json());
    expect(await health()).toMatchObject({ ready: false, failure: null, stamps: [] });
    agent.checklist.stamp('agent');
    agent.checklist.stamp('init', 0);
    agent.checklist.stamp('provider');
    agent.checklist.stamp('provider');
    expect(await health()).toMatchObject({ ready: true });
    expect((await health()).stamps.map((stamp) => stamp.checkpoint)).toEqual(['init', 'agent', 'provider']);
    const lines = (await boot.text()).trimEnd().split('\n');
    expect(lines).toHaveLength(4);
    expect(lines.at(-1)).toBe('{"type":"ready"}');
  });
});

describe('exec', () => {
  const exec = (argv: string[], more: Record<string, unknown> = {}, signal?: AbortSignal) =>
    agent.call('POST', '/v1/exec', { argv, timeoutMs: 15_000, ...more }, signal);

  it('runs as the person, with a clean environment, and tells output and exit code', async () => {
    const got = await events(
      await exec(['sh', '-c', 'cat; echo "$X $HOME"; id -u >&2; exit 7'], {
        stdin: 'über\n',
        env: { X: 'y' },
      }),
    );
    const text = (type: 'stdout' | 'stderr') =>
      got.map((event) => (event.type !== 'exit' && event.type === type ? event.text : '')).join('');
    const { home, ids } = fixture.processes.person;
    expect(text('stdout')).toBe(`über\ny ${home}\n`);
    expect(text('stderr')).toBe(`${ids?.uid ?? process.getuid?.()}\n`);
    expect(got.at(-1)).toEqual({ type: 'exit', code: 7, signal: null, timedOut: false });
  });

  it('ends what takes too long, with its children', async () => {
    const mark = path.join(fixture.processes.person.home, 'late');
    const body = `(sleep 2; touch ${mark}) & wait`;
    const got = await events(await exec(['sh', '-c', body], { timeoutMs: 300 }));
    expect(got.at(-1)).toMatchObject({ type: 'exit', code: null, signal: 'SIGTERM', timedOut: true });
    await delay(2_200);
    expect(existsSync(mark)).toBe(false);
  });

  it('ends a command whose caller went away', async () => {
    const gone = new AbortController();
    const pid = path.join(fixture.processes.person.home, 'pid');
    const response = await exec(['sh', '-c', `echo $$ > ${pid}; echo up; exec sleep 60`], {}, gone.signal);
    await response.body?.getReader().read();
    const running = Number(readFileSync(pid, 'utf8'));
    expect(existsSync(`/proc/${running}`)).toBe(true);
    gone.abort();
    await expect.poll(() => existsSync(`/proc/${running}`), { timeout: 10_000 }).toBe(false);
  });

  it('lets a program wait for a slow reader instead of keeping its output', async () => {
    const response = await exec(['sh', '-c', 'head -c 50000000 /dev/zero | tr "\\0" x']);
    await delay(500);
    let size = 0;
    let last = '';
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      last = Buffer.from(chunk).toString('utf8').slice(-200);
    }
    expect(size).toBeGreaterThan(50_000_000);
    expect(last).toContain('"exit","code":0');
  });

  it('says that a program does not exist', async () => {
    const got = await events(await exec(['/no/such/program']));
    expect(got.at(-1)).toMatchObject({ type: 'exit', code: 127 });
  });
});

describe('credentials', () => {
  const jwt = 'eyJhbGciOiJub25lIn0.e30.sig';
  const tokens = { id_token: jwt, access_token: jwt, refresh_token: 'canary', account_id: 'acc-1' };
  const bundle = (content: unknown, target = '.codex/auth.json') => ({
    provider: 'codex',
    files: [
      { path: target, mode: 0o644, contentBase64: Buffer.from(JSON.stringify(content)).toString('base64') },
    ],
  });
  const home = () => fixture.processes.person.home;
  const put = (body: unknown) => agent.call('PUT', '/v1/credentials/codex', body);

  it('are installed whole, private and owned by the person, handed out and deleted', async () => {
    expect(await (await agent.call('GET', '/v1/credentials/codex')).json()).toMatchObject({
      state: 'absent',
    });
    expect(await (await put(bundle({ tokens }))).json()).toMatchObject({
      state: 'complete',
      facts: { accountId: 'acc-1' },
    });
    const file = path.join(home(), '.codex/auth.json');
    expect(lstatSync(file).mode & 0o777).toBe(0o600);
    expect(lstatSync(path.dirname(file)).mode & 0o777).toBe(0o700);
    expect(lstatSync(file).uid).toBe(fixture.processes.person.ids?.uid ?? process.getuid?.());
    const files = await (await agent.call('GET', '/v1/credentials/codex/files')).json();
    expect(files).toEqual({
      ...bundle({ tokens }),
      files: [{ ...bundle({ tokens }).files[0], mode: 0o600 }],
    });
    expect((await agent.call('DELETE', '/v1/credentials/codex')).status).toBe(204);
    expect(await code(await agent.call('GET', '/v1/credentials/codex/files'))).toBe('credential_missing');
    expect(fixture.log.text()).not.toContain('canary');
  });

  it('that are not whole are refused and replace nothing', async () => {
    await put(bundle({ tokens }));
    expect(await code(await put(bundle({})))).toBe('credential_incomplete');
    expect(await code(await put(bundle({ tokens }, '.bashrc')))).toBe('bad_request');
    expect(await code(await put(bundle({ tokens }, '../x')))).toBe('bad_request');
    expect(await (await agent.call('GET', '/v1/credentials/codex')).json()).toMatchObject({
      state: 'complete',
    });
  });

  it('never follow a link that the person planted', async () => {
    const victim = path.join(fixture.root, 'victim');
    writeFileSync(victim, 'untouched', { mode: 0o600 });
    asPerson(fixture.processes.person, () => {
      mkdirSync(path.join(home(), '.codex'));
      symlinkSync(victim, path.join(home(), '.codex/auth.json'));
    });
    expect(await (await agent.call('GET', '/v1/credentials/codex')).json()).toMatchObject({
      state: 'absent',
    });
    await put(bundle({ tokens }));
    expect(readFileSync(victim, 'utf8')).toBe('untouched');
  });
});

describe('terminals', () => {
  const open = async (argv?: string[]) => {
    const size = { cols: 80, rows: 24 };
    const response = await agent.call('POST', '/v1/terminals', argv === undefined ? size : { ...size, argv });
    return ((await response.json()) as { id: string }).id;
  };
  const attach = async (id: string) => {
    const stream = await agent.upgrade(`/v1/terminals/${id}/stream`);
    if (typeof stream === 'number') throw new Error(`refused with ${stream}`);
    return stream;
  };
  const reads = async (stream: Duplex, wanted: RegExp) => {
    let text = '';
    for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      text += chunk.toString('utf8');
      if (wanted.test(text)) return text;
    }
    throw new Error(`the stream ended after ${JSON.stringify(text)}`);
  };

  it('outlive a dropped stream, show the last output again and know their size', async () => {
    const id = await open(['/bin/sh']);
    const first = await attach(id);
    first.write('echo mar""ker; tty >/dev/null && echo is a tty\n');
    await reads(first, /marker[\s\S]*is a tty/);
    first.destroy();
    await agent.call('POST', `/v1/terminals/${id}/size`, { cols: 101, rows: 33 });
    const second = await attach(id);
    await reads(second, /marker[\s\S]*is a tty/);
    second.write('stty size\n');
    await reads(second, /33 101/);
    second.write('exit\n');
    for await (const _ of second);
    expect(await agent.upgrade(`/v1/terminals/${id}/stream`)).toBe(404);
  });

  it('are hung up when they are closed', async () => {
    const id = await open(['/bin/sh', '-c', 'echo pid=$$.; exec sleep 60']);
    const stream = await attach(id);
    const pid = /pid=(\d+)\./.exec(await reads(stream, /pid=\d+\./))?.[1];
    expect((await agent.call('DELETE', `/v1/terminals/${id}`)).status).toBe(204);
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 10_000 }).toBe(false);
  });

  it('give a slow reader everything in the end', async () => {
    const id = await open(['/bin/sh', '-c', 'seq 1 300000; echo the-end']);
    const stream = await attach(id);
    await delay(500);
    expect(await reads(stream, /the-end/)).toMatch(/299999\r\n300000\r\nthe-end/);
  });
});
