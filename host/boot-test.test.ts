/** The boot test on the real image, and on one whose agent does not start. */
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { bootTest } from './boot-test.ts';
import { makeImage, temporaryDirectory } from './images/fixture.ts';
import { ensureLayer } from './images/layer.ts';
import { attachedFiles } from './images/mounts.ts';
import { unconfined } from './images/sandbox.ts';
import { openImageStore } from './images/store.ts';
import { CHECKOUT, IMAGE_CACHE, lacking } from './testing/fixture.ts';

const missing = lacking({ image: true });
const DEADLINE_MS = 120_000;

describe.skipIf(missing !== undefined)(`boot test (needs ${missing ?? 'nothing more'})`, () => {
  const signal = AbortSignal.timeout(2 * DEADLINE_MS);

  it('boots the current image to the end of its checklist', { timeout: DEADLINE_MS }, async () => {
    const image = await openImageStore(IMAGE_CACHE).current();
    const record = await bootTest({
      image: image?.id ?? '',
      imageCacheDir: IMAGE_CACHE,
      checkout: CHECKOUT,
      signal,
    });
    expect(record.checkpoints).toEqual(expect.arrayContaining(['agent', 'desktop', 'browser', 'provider']));
  });

  it('names an image that cannot start its agent, with what it printed, and leaves nothing', {
    timeout: DEADLINE_MS,
  }, async () => {
    await using cache = await temporaryDirectory();
    const real = await openImageStore(IMAGE_CACHE).current();
    if (real === undefined) throw new Error('no image');
    const agent = await ensureLayer(
      {
        name: 'agent',
        id: 'deadbeefdeadbeef',
        async fill(root) {
          const folder = path.join(root, 'opt/polydev/agent');
          await mkdir(folder, { recursive: true });
          await writeFile(path.join(folder, 'main.mjs'), 'console.error("no such luck"); process.exit(3);\n');
          return {};
        },
      },
      { cacheDir: cache.path, sandbox: unconfined, signal, progress: () => undefined, log: () => undefined },
    );
    const others = real.layers.filter(({ name }) => name !== 'agent');
    for (const { file } of others) {
      await symlink(path.join(IMAGE_CACHE, file), path.join(cache.path, file));
    }
    const broken = await makeImage(cache.path, [...others, agent]);
    await expect(
      bootTest({ image: broken.id, imageCacheDir: cache.path, checkout: CHECKOUT, signal }),
    ).rejects.toMatchObject({
      code: 'image_verification_failed',
      message: expect.stringContaining('does not boot'),
      lines: expect.arrayContaining([expect.stringContaining('no such luck')]),
    });
    expect(await attachedFiles()).not.toContainEqual(expect.stringContaining(cache.path));
  });
});
