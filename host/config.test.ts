import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';

const GOOD = {
  instance: 'abcdef',
  dataDir: '/var/lib/polydev',
  runDir: '/run/polydev-abcdef',
  socketPath: '/run/polydev-abcdef/host.sock',
  socketUid: 1000,
  imageCacheDir: '/var/cache/polydev/images',
  nodePath: '/usr/bin/node',
  checkout: '/opt/polydev',
};

describe('settings of the host service', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'polydev-config-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const read = async (text: string) => {
    const path = join(folder, 'host.json');
    await writeFile(path, text);
    return readConfig(path);
  };

  it('fills in the defaults', async () => {
    expect(await read(JSON.stringify(GOOD))).toMatchObject({ uplink: 'nat', subnet: '10.213.0.0/16' });
  });

  it('takes a checkout with a space in its path', async () => {
    const checkout = '/home/ada/my projects/polydev';
    expect(await read(JSON.stringify({ ...GOOD, checkout }))).toMatchObject({ checkout });
  });

  it.each([
    ['instance', { instance: 'Too-Long' }],
    ['dataDir', { dataDir: 'relative' }],
    ['dataDir', { dataDir: '/with,comma' }],
    ['subnet', { subnet: '10.0.0.1' }],
    ['uplink', { uplink: 'bridge' }],
    ['suprise', { suprise: 1 }],
  ])('names %s when it is wrong', async (name, change) => {
    const problem = expect.stringContaining(name);
    await expect(read(JSON.stringify({ ...GOOD, ...change }))).rejects.toMatchObject({
      code: 'configuration_invalid',
      message: problem,
    });
  });

  it('names a file that is no JSON', async () => {
    await expect(read('{')).rejects.toMatchObject({ code: 'configuration_invalid' });
  });
});
