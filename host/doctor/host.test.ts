import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { audit } from '../leaks.ts';
import { run } from '../system/command.ts';
import { listIfThere } from '../system/files.ts';
import { CHECKOUT, lacking, randomInstance } from '../testing/fixture.ts';
import type { Check } from './check.ts';
import { type Examination, examineHost } from './host.ts';
import { image, tryKernel, vmKernel } from './image.ts';
import { staleSockets, strangers, strayNamespaces } from './leftovers.ts';
import { addresses } from './network.ts';
import { dataFolder } from './resources.ts';

const missing = lacking({ image: false });
const folder = mkdtempSync(join(tmpdir(), 'polydev-doctor-'));
afterAll(() => rmSync(folder, { recursive: true }));

function examination(change: Partial<Examination> = {}): Examination {
  const instance = randomInstance();
  return {
    instance,
    runDir: `/run/polydev-${instance}`,
    dataDir: folder,
    sharedDir: join(folder, 'shared'),
    checkout: CHECKOUT,
    imageCacheDir: join(folder, 'images'),
    running: false,
    ...change,
  };
}

describe.skipIf(missing !== undefined)(`doctor (needs ${missing ?? 'nothing more'})`, () => {
  it('tries everything, says what it saw, mends by a command, and leaves nothing', async () => {
    const host = examination();
    const checks = await examineHost(host, AbortSignal.timeout(60_000));
    const of = (name: string): Check | undefined => checks.find((check) => check.name === name);
    // Of this host: machines run here, or the tests of the drivers would not.
    for (const name of [
      'data folder',
      'loop devices',
      'user namespace',
      'private disk',
      'idmapped overlay',
      'runc',
      'guest',
      'bridge',
      'veth',
      'tap',
      'packet filters',
      'dns server',
      'addresses',
      'sockets',
    ]) {
      expect(of(name), name).toMatchObject({ state: 'ok' });
    }
    expect(of('image')).toMatchObject({ state: 'fail', remedy: './polydev image build' });
    expect(new Set(checks.map(({ name }) => name)).size).toBe(checks.length);
    for (const { state, evidence, remedy } of checks) {
      expect(evidence).not.toBe('');
      if (state !== 'ok') expect(remedy).not.toBeNull();
    }
    expect(await audit(host)).toEqual([]);
    const left = [...(await listIfThere('/run')), ...(await listIfThere('/run/netns'))];
    expect(left.filter((name) => name.includes('doctor'))).toEqual([]);
    expect((await listIfThere(folder)).filter((name) => name.startsWith('.doctor'))).toEqual([]);
  });

  it('sees a socket that nobody listens on, and not one that somebody does', async () => {
    const runDir = join(folder, 'run');
    await mkdir(join(runDir, 'm/one'), { recursive: true });
    const live = createServer();
    await new Promise<void>((resolve) => live.listen(join(runDir, 'm/live'), resolve));
    const host = examination({ runDir });
    expect(await staleSockets(host)).toMatchObject({ state: 'ok' });
    // A process that is killed leaves its socket's file behind.
    const dead = join(runDir, 'm/one/qmp');
    const listen = `require('net').createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, 9))`;
    await run([process.execPath, '-e', listen]).catch(() => undefined);
    const found = await staleSockets(host);
    live.close();
    expect(found.state).toBe('warn');
    expect(found.evidence).toContain(dead);
    expect(found.evidence).not.toContain('m/live');
  });

  it('sees namespaces of an instance whose host service is gone', async () => {
    const other = randomInstance();
    const name = `pd-${other}-router`;
    await run(['ip', 'netns', 'add', name]);
    try {
      expect(await strangers(examination())).toMatchObject({ state: 'warn' });
      // The check names a few of them; there may be others here.
      expect(await strayNamespaces(examination())).toContain(name);
      // Its own are the business of another check.
      expect(await strayNamespaces(examination({ instance: other }))).not.toContain(name);
    } finally {
      await run(['ip', 'netns', 'del', name]);
    }
  });
});

describe('doctor', () => {
  it('says what of the kernel of virtual machines is wrong', async () => {
    const host = examination({ imageCacheDir: join(folder, 'vm-cache') });
    expect(await vmKernel(host)).toMatchObject({ state: 'ok', remedy: './polydev image build --vm' });
    expect(await vmKernel({ ...host, driver: 'qemu' })).toMatchObject({ state: 'fail' });
    // An ELF header, of x86-64 and of ARM, as compilers write it; then what is none.
    const initrd = join(folder, 'initrd');
    await writeFile(initrd, 'a file');
    const seen = async (head: Buffer): Promise<Check> => {
      const kernel = join(folder, 'kernel');
      await writeFile(kernel, Buffer.concat([head, Buffer.alloc(1024)]));
      return tryKernel({ kernel, initrd, release: '6.1' }, 'make it again');
    };
    const elf = (machine: number): Buffer => {
      const head = Buffer.alloc(64);
      head.write('\x7fELF', 'latin1');
      head.writeUInt16LE(machine, 18);
      return head;
    };
    expect(await seen(elf(0x3e))).toMatchObject({ state: 'ok' });
    expect(await seen(elf(0xb7))).toMatchObject({ state: 'fail', remedy: 'make it again' });
    expect(await seen(Buffer.from('no kernel'))).toMatchObject({ state: 'fail' });
    const away = { kernel: join(folder, 'none'), initrd, release: '6.1' };
    expect((await tryKernel(away, 'make it again')).evidence).toContain('ENOENT');
  });

  it('says that there is no image', async () => {
    expect(await image(examination())).toMatchObject([{ name: 'image', state: 'fail' }]);
  });

  it('counts the addresses that are taken', async () => {
    const runDir = join(folder, 'leases');
    await mkdir(join(runDir, 'addresses'), { recursive: true });
    const host = examination({ runDir, subnet: '10.213.0.0/26', uplink: 'none' });
    expect(await addresses(host)).toMatchObject({
      state: 'ok',
      evidence: expect.stringContaining('0 of 54'),
    });
    for (let n = 0; n < 54; n++) writeFileSync(join(runDir, 'addresses', String(n)), 'm');
    expect(await addresses(host)).toMatchObject({
      state: 'fail',
      evidence: expect.stringContaining('54 of 54'),
    });
  });

  it('tries the data folder without leaving anything, and says what it is on', async () => {
    const place = join(folder, 'data');
    await mkdir(place);
    await writeFile(join(place, 'mine'), 'x');
    await chmod(place, 0o700);
    const found = await dataFolder(place);
    expect(found.evidence).toMatch(/is on (ext4|xfs|btrfs|overlay|tmpfs)/);
    expect(await listIfThere(place)).toEqual(['mine']);
  });
});
