import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Call, FirecrackerApi, judge } from './api.ts';
import { bootCalls, LOAD, loadCopy, PAUSE, RESUME, SAVE, START } from './args.ts';
import { VsockChannel } from './channel.ts';

/** Requests and answers of the genuine v1.16.1, recorded in the KVM bench on 2026-11-21. */
const Exchanges = z.array(
  z.object({
    method: z.enum(['GET', 'PUT', 'PATCH']),
    path: z.string(),
    body: z.looseObject({}).optional(),
    status: z.number(),
    reply: z.unknown(),
  }),
);
const recorded = Exchanges.parse(
  JSON.parse(readFileSync(join(import.meta.dirname, 'fixtures/exchanges.json'), 'utf8')),
);

let ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends) end();
  ends = [];
});

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'polydev-firecracker-'));
  ends.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Speaks HTTP on a unix socket as each test wants. */
async function peer(answer: (request: IncomingMessage, body: string, response: ServerResponse) => void) {
  const path = join(folder(), 'api.sock');
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on('end', () => answer(request, body, response));
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  ends.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return new FirecrackerApi(path, 1);
}

const recordedCall = ({ method, path, body }: z.infer<typeof Exchanges>[number]): Call => ({
  method,
  path,
  ...(body === undefined ? {} : { body }),
});

describe('recorded exchanges', () => {
  it('are what the driver asks today, and Firecracker accepted each', () => {
    const accepted = recorded
      .filter(({ status }) => status < 300)
      .map((each) => JSON.stringify(recordedCall(each)));
    const guest = {
      limits: { cpus: 1.5, memoryMiB: 128, pids: 64 },
      kind: 'cli' as const,
      layers: 1,
      bootArguments: ['polydev.layers=1'],
      mac: '02:70:0a:d5:00:02',
      tap: 'vp1',
    };
    const asked = [...bootCalls(guest), START, PAUSE, SAVE, LOAD, loadCopy('vp2'), RESUME];
    expect(asked.filter((call) => !accepted.includes(JSON.stringify(call)))).toEqual([]);
  });

  it('give what they mean: a body, nothing, or an error in Firecracker’s own words', async () => {
    const api = await peer((request, body, response) => {
      const found = recorded[next];
      expect([request.method, request.url, body === '' ? undefined : JSON.parse(body)]).toEqual([
        found?.method,
        found?.path,
        found?.body,
      ]);
      response.statusCode = found?.status ?? 500;
      response.end(found?.reply === null ? undefined : JSON.stringify(found?.reply));
    });
    let next = 0;
    for (const exchange of recorded) {
      const answer = api.call(recordedCall(exchange));
      if (exchange.status < 300) await expect(answer).resolves.toEqual(exchange.reply);
      else {
        const { fault_message: words } = exchange.reply as { fault_message: string };
        await expect(answer).rejects.toMatchObject({
          code: 'machine_unreachable',
          message: `Firecracker: ${exchange.method} ${exchange.path}: ${exchange.status}: ${words}`,
        });
      }
      next += 1;
    }
    expect(recorded.filter(({ status }) => status >= 400).length).toBeGreaterThan(5);
  });
});

describe('control socket of Firecracker', () => {
  it('gives up on silence, on no socket, on what is no answer and on a link put in its place', async () => {
    const silent = await peer(() => undefined);
    await expect(silent.call(START, 30)).rejects.toThrow('PUT /actions: no answer after 30 ms');
    const babbling = await peer((_request, _body, response) => response.end('{"half":'));
    await expect(babbling.call({ method: 'GET', path: '/' })).rejects.toMatchObject({
      code: 'machine_unreachable',
    });
    const other = await peer((_request, _body, response) => response.end('{"id":"x"}'));
    await expect(other.describe()).rejects.toThrow('it does not describe itself');
    await expect(new FirecrackerApi('/nonexistent/api.sock', 1).call(START)).rejects.toMatchObject({
      code: 'machine_unreachable',
    });
    const place = folder();
    symlinkSync('/nonexistent', join(place, 'link'));
    writeFileSync(join(place, 'file'), '');
    for (const name of ['link', 'file']) {
      await expect(new FirecrackerApi(join(place, name), 1).call(START)).rejects.toThrow('is no socket');
    }
  });

  it('names an answer that is an error without words', () => {
    expect(() => judge(START, { status: 503, body: null })).toThrow('Firecracker: PUT /actions: 503');
  });
});

describe('virtual socket of a guest', () => {
  /** Answers the first line as told, and echoes the rest. */
  async function guest(answer: (line: string) => string | undefined): Promise<VsockChannel> {
    const path = join(folder(), 'vsock.sock');
    const server = createSocketServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', (bytes) => {
        const said = answer(bytes.toString());
        if (said === undefined) socket.end();
        else socket.write(said);
        socket.on('data', (more) => socket.write(more));
      });
    });
    await new Promise<void>((resolve) => {
      server.listen(path, resolve);
    });
    ends.push(() => server.close());
    return new VsockChannel(path, 1);
  }

  it('connects to a port and keeps what comes right behind the answer', async () => {
    const lines: string[] = [];
    using channel = await guest((line) => {
      lines.push(line);
      return 'OK 1073741824\nearly ';
    });
    const stream = await channel.dial(8080, AbortSignal.timeout(30_000));
    stream.write('and late');
    let text = '';
    for await (const chunk of stream) {
      text += String(chunk);
      if (text.endsWith('late')) break;
    }
    expect(lines).toEqual(['CONNECT 8080\n']);
    expect(text).toBe('early and late');
  });

  it('says that nobody listens, and gives up on what is no answer', async () => {
    using deaf = await guest(() => undefined);
    await expect(deaf.dial(22, AbortSignal.timeout(30_000))).rejects.toMatchObject({
      code: 'machine_unreachable',
      message: expect.stringContaining('nobody in the guest listens there'),
    });
    using odd = await guest(() => 'NO\n');
    await expect(odd.dial(22, AbortSignal.timeout(30_000))).rejects.toThrow('it answered "NO"');
    using silent = await guest(() => '');
    await expect(silent.dial(22, AbortSignal.timeout(50))).rejects.toMatchObject({
      code: 'machine_unreachable',
    });
  });
});
