import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';

const GOOD = {
  port: 4000,
  bind: '127.0.0.1',
  databaseUrl: 'postgresql://u:hunter2@localhost/db',
  hostSocket: '/run/h.sock',
  masterKeyFile: '/data/master-key',
  dataDir: '/data',
  webDist: '/app/web/dist',
  instance: 'abcdef',
  allowTestRealm: false,
  logLevel: 'info',
  apiKeyFile: '/data/api-key',
};

describe('the configuration', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'polydev-config-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const read = async (content: string) => {
    const file = path.join(folder, 'config.json');
    await writeFile(file, content);
    return readConfig(file);
  };

  it('reads what is complete', async () => {
    expect(await read(JSON.stringify(GOOD))).toEqual(GOOD);
  });

  it('names settings that are unknown or wrong', async () => {
    const wrong = { ...GOOD, port: 'x', surprise: 1 };
    await expect(read(JSON.stringify(wrong))).rejects.toMatchObject({
      code: 'configuration_invalid',
      message: expect.stringMatching(/port.*surprise/s),
    });
  });

  it.each([
    ['none', { masterKeyFile: undefined }],
    ['two', { masterKeyEnv: 'KEY' }],
  ])('wants exactly one source of the master key: %s', async (_name, change) => {
    await expect(read(JSON.stringify({ ...GOOD, ...change }))).rejects.toMatchObject({
      message: expect.stringContaining('exactly one of masterKeyFile'),
    });
  });

  it('never quotes the file, which holds a password', async () => {
    const error: unknown = await read(`{"databaseUrl": "postgresql://u:hunter2@localhost/db" oops`).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({
      code: 'configuration_invalid',
      message: expect.stringContaining('is not JSON'),
    });
    expect(String(error)).not.toContain('hunter2');
  });

  it('says when there is no file', async () => {
    await expect(readConfig(path.join(folder, 'missing.json'))).rejects.toMatchObject({
      message: expect.stringContaining('cannot be read'),
    });
  });
});
