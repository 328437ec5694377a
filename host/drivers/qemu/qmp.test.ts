import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, it } from 'vitest';
import { Qmp } from './qmp.ts';

/** The other end of a control socket: what it says is up to each test. */
async function peer(onLine: (line: { execute: string; id: number }, socket: Socket) => void, greet = true) {
  const folder = mkdtempSync(join(tmpdir(), 'polydev-qmp-'));
  const path = join(folder, 'qmp.sock');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    if (greet) socket.write('{"QMP": {"version": {}, "capabilities": []}}\r\n');
    createInterface({ input: socket }).on('line', (line) => {
      const call = JSON.parse(line) as { execute: string; id: number };
      if (call.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${call.id}}\r\n`);
      else onLine(call, socket);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  const end = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { path, end };
}

let ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends) end();
  ends = [];
});
const start = async (...args: Parameters<typeof peer>): Promise<string> => {
  const { path, end } = await peer(...args);
  ends.push(end);
  return path;
};

describe('control socket of the hypervisor', () => {
  it('matches replies by id, whatever comes between and in whatever order', async () => {
    const calls: { execute: string; id: number }[] = [];
    const path = await start((call, socket) => {
      calls.push(call);
      if (calls.length < 2) return;
      socket.write('{"event": "STOP", "timestamp": {}}\r\nnot json\r\n{"return": "stale", "id": 9999}\r\n');
      for (const { execute, id } of [...calls].reverse()) {
        socket.write(`${JSON.stringify({ return: execute, id })}\r\n`);
      }
    });
    using qmp = await Qmp.connect(path, 2000);
    expect(await Promise.all([qmp.execute('one'), qmp.execute('two')])).toEqual(['one', 'two']);
  });

  it('tells errors of the hypervisor', async () => {
    const path = await start(({ id }, socket) => {
      socket.write(`{"error": {"class": "GenericError", "desc": "no such device"}, "id": ${id}}\r\n`);
    });
    using qmp = await Qmp.connect(path, 2000);
    await expect(qmp.execute('device_del')).rejects.toMatchObject({
      code: 'machine_unreachable',
      message: expect.stringContaining('GenericError: no such device'),
    });
  });

  it('gives up on silence, on a missing greeting, on a lost connection and on no socket', async () => {
    const silent = await start(() => undefined);
    using qmp = await Qmp.connect(silent, 2000);
    await expect(qmp.execute('query-status', {}, 30)).rejects.toThrow(
      'no answer to query-status after 30 ms',
    );
    await expect(Qmp.connect(await start(() => undefined, false), 30)).rejects.toThrow('greeting');
    const lost = await start((_call, socket) => socket.destroy());
    using broken = await Qmp.connect(lost, 2000);
    await expect(broken.execute('quit')).rejects.toThrow('closed its control socket');
    await expect(broken.execute('quit')).rejects.toThrow('control socket is closed');
    await expect(Qmp.connect('/nonexistent/qmp.sock', 2000)).rejects.toMatchObject({
      code: 'machine_unreachable',
    });
  });
});
