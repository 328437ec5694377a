import { execFileSync } from 'node:child_process';
import { access, chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CHECKS, runChecks } from './checks.ts';
import { hasCommand, makeLayer, temporaryDirectory } from './fixture.ts';
import { imageId } from './identity.ts';
import { verifyImage } from './verify.ts';

const notRoot = process.getuid?.() !== 0; // capability: root, for mounts and chroot
const noErofs = !hasCommand('mkfs.erofs'); // capability: erofs-utils

/** Checks that only look at files: enough of a root to see each of them pass, then break it. */
describe('file checks', () => {
  let root = '';
  const put = async (file: string, text: string): Promise<void> => {
    await mkdir(path.dirname(path.join(root, file)), { recursive: true });
    await writeFile(path.join(root, file), text);
  };
  const problems = async (name: string): Promise<string[]> => {
    const { findings } = await runChecks(
      root,
      CHECKS.filter((check) => check.name === name),
    );
    return findings.map((finding) => finding.problem);
  };
  beforeAll(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'polydev-root-'));
    for (const directory of ['etc', 'home', 'root', 'opt/polydev/agent', 'var/log/apt']) {
      await mkdir(path.join(root, directory), { recursive: true });
    }
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  test('machine identity', async () => {
    expect(await problems('machine identity')).toHaveLength(1);
    await put('etc/machine-id', '');
    expect(await problems('machine identity')).toEqual([]);
    await put('etc/ssh/ssh_host_rsa_key', 'x');
    expect(await problems('machine identity')).toEqual(['/etc/ssh holds ssh_host_rsa_key']);
  });

  test('traces of the build', async () => {
    expect(await problems('empty')).toEqual([]);
    await put('var/log/apt/term.log', 'x');
    expect(await problems('empty')).toEqual(['holds term.log']);
    expect(await problems('absent')).toEqual([]);
    await put('etc/hostname', 'x');
    await put('etc/apt/sources.list', 'x');
    expect(await problems('absent')).toHaveLength(2);
  });

  test('resolver', async () => {
    await put('etc/resolv.conf', '');
    expect(await problems('resolver')).toEqual([]);
    await put('etc/resolv.conf', 'nameserver 192.0.2.1');
    expect(await problems('resolver')).toHaveLength(1);
  });

  test('person', async () => {
    await put('etc/shadow', 'person:!:1::::::\n');
    await put('etc/passwd', 'root:x:0:0::/root:/bin/bash\nperson:x:1000:1000::/home/person:/bin/bash\n');
    expect(await problems('person')).toEqual([]);
    await put('etc/shadow', 'person:$y$abc:1::::::\n');
    expect(await problems('person')).toEqual(['/etc/shadow holds a password']);
    await put('etc/passwd', 'person:x:1001:1000::/home/person:/bin/bash\n');
    expect(await problems('person')).toEqual(['says person:x:1001:1000::/home/person:/bin/bash']);
  });

  test('secrets', async () => {
    await put('etc/plain', 'https://example.test/path');
    expect(await problems('no secrets')).toEqual([]);
    await put('etc/mirror', 'deb https://user:secret@mirror.example/debian bookworm main');
    expect(await problems('no secrets')).toEqual(['/etc/mirror looks as if it held a secret']);
  });

  test('owner of eth0', async () => {
    await put('etc/systemd/network/20-eth0.network', '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n');
    await put('etc/systemd/network/80-other.network', '[Match]\nName=eth0\n');
    expect((await problems('one owner of eth0'))[0]).toContain('several would');
    await rm(path.join(root, 'etc/systemd/network'), { recursive: true });
    expect(await problems('one owner of eth0')).toEqual(['nobody configures eth0']);
  });

  test('unit link', async () => {
    const wants = 'etc/systemd/system/multi-user.target.wants';
    expect(await problems('unit')).toEqual(['is not enabled']);
    await put(`${wants}/other.service`, '');
    await symlink('other.service', path.join(root, wants, 'polydev-agent.service'));
    expect(await problems('unit')).toEqual([`the link leads to /${wants}/other.service`]);
  });

  test.skipIf(notRoot)('owner and mode (needs root)', async () => {
    await put('opt/polydev/agent/main.mjs', '');
    await chmod(path.join(root, 'opt/polydev/agent/main.mjs'), 0o600);
    expect(await problems('owner and mode')).toContain('has mode 600 instead of 644');
  });
});

describe.skipIf(notRoot || noErofs)('a whole image (needs root and mkfs.erofs)', () => {
  const signal = AbortSignal.timeout(120_000);

  test('an image without its programs fails with one line per check and leaves no mount', async () => {
    await using cache = await temporaryDirectory();
    const layers = [
      await makeLayer(cache.path, 'base', 'base'),
      await makeLayer(cache.path, 'agent', 'agent'),
    ];
    const image = {
      schema: 1,
      id: imageId(layers.map((l) => l.id)),
      layers,
      created: new Date().toISOString(),
    } as const;
    const error = await verifyImage({ ...image, layers }, { cacheDir: cache.path, signal }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ code: 'image_verification_failed' });
    expect(error).toMatchObject({
      lines: expect.arrayContaining([
        expect.stringMatching(/^runs: \/usr\/bin\/chromium: does not exist/),
        expect.stringMatching(/^one owner of eth0: .*nobody configures eth0/),
      ]),
    });
    expect(execFileSync('losetup', ['--list', '--noheadings'], { timeout: 5_000 }).toString()).not.toContain(
      cache.path,
    );
  });

  test('changed bytes of a layer are seen before anything is mounted', async () => {
    await using cache = await temporaryDirectory();
    const layers = [await makeLayer(cache.path, 'base', 'base')];
    await access(path.join(cache.path, layers[0]?.file ?? ''));
    await writeFile(path.join(cache.path, layers[0]?.file ?? ''), 'other');
    const image = { schema: 1, id: imageId(['x']), layers, created: new Date().toISOString() } as const;
    await expect(verifyImage({ ...image, layers }, { cacheDir: cache.path, signal })).rejects.toMatchObject({
      code: 'image_verification_failed',
      lines: [expect.stringContaining('layer bytes')],
    });
  });
});
