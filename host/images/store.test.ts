import { execFileSync } from 'node:child_process';
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { hasCommand, makeImage, makeLayer, temporaryDirectory } from './fixture.ts';
import { mountPointsBelow, parseMountPoints } from './mounts.ts';
import { openImageStore } from './store.ts';

const noErofs = !hasCommand('mkfs.erofs'); // capability: erofs-utils
const notRoot = process.getuid?.() !== 0; // capability: root, to mount

test('mount points are read with their escapes undone', () => {
  const table =
    '36 35 98:0 / /mnt/a\\040b rw - erofs /dev/loop0 ro\n37 35 98:0 / /mnt/c rw - ext4 /dev/sda rw\n';
  expect(parseMountPoints(table)).toEqual(['/mnt/a b', '/mnt/c']);
});

describe.skipIf(noErofs)('image store (needs mkfs.erofs)', () => {
  test('knows no image in an empty cache', async () => {
    await using cache = await temporaryDirectory();
    const store = openImageStore(cache.path);
    expect(await store.current()).toBeUndefined();
    expect(await store.list()).toEqual([]);
    expect(await store.get('../current')).toBeUndefined();
    await expect(store.use('0123456789abcdef')).rejects.toMatchObject({ code: 'image_missing' });
  });

  test('use makes an image current, and only a whole one', async () => {
    await using cache = await temporaryDirectory();
    const base = await makeLayer(cache.path, 'base', 'base');
    const one = await makeImage(
      cache.path,
      [base, await makeLayer(cache.path, 'agent', 'one')],
      new Date(1000),
    );
    const two = await makeImage(
      cache.path,
      [base, await makeLayer(cache.path, 'agent', 'two')],
      new Date(2000),
    );
    const store = openImageStore(cache.path);
    await store.use(one.id);
    expect((await store.current())?.id).toBe(one.id);
    expect((await store.list()).map((image) => image.id)).toEqual([two.id, one.id]);

    await writeFile(path.join(cache.path, two.layers[1]?.file ?? ''), 'cut short');
    await expect(store.use(two.id)).rejects.toMatchObject({ code: 'image_missing' });
    expect((await readFile(path.join(cache.path, 'current'), 'utf8')).trim()).toBe(one.id);
  });

  test('prune keeps the current image, those asked for and the layers they share', async () => {
    await using cache = await temporaryDirectory();
    await using run = await temporaryDirectory();
    const base = await makeLayer(cache.path, 'base', 'base');
    const images = [];
    for (const text of ['one', 'two', 'three']) {
      images.push(await makeImage(cache.path, [base, await makeLayer(cache.path, 'agent', text)]));
    }
    const [one, two, three] = images;
    if (one === undefined || two === undefined || three === undefined) throw new Error('three images');
    const store = openImageStore(cache.path, { runDir: run.path });
    await store.use(two.id);
    const removed = await store.prune([three.id]);
    expect(removed.map(({ file }) => file)).toEqual([`images/${one.id}.json`, one.layers[1]?.file]);
    expect(removed[1]?.bytes).toBe(one.layers[1]?.bytes);
    expect(new Set((await store.list()).map((image) => image.id))).toEqual(new Set([two.id, three.id]));
    await access(path.join(cache.path, base.file));
    await store.use(three.id);
  });

  test('an image that has not booted here cannot become current', async () => {
    await using cache = await temporaryDirectory();
    const layer = await makeLayer(cache.path, 'base', 'base');
    const { booted, ...image } = await makeImage(cache.path, [layer]);
    if (booted === undefined) throw new Error('the fixture has booted');
    await writeFile(path.join(cache.path, 'images', `${image.id}.json`), JSON.stringify(image));
    const store = openImageStore(cache.path);
    await expect(store.use(image.id)).rejects.toMatchObject({ code: 'image_verification_failed' });
    expect(await store.current()).toBeUndefined();
    await store.recordBoot(image.id, booted);
    expect((await store.use(image.id)).booted).toEqual(booted);
  });

  test('prune keeps the images of machines, of any installation that has claimed them', async () => {
    await using cache = await temporaryDirectory();
    await using data = await temporaryDirectory();
    const [one, two] = [
      await makeImage(cache.path, [await makeLayer(cache.path, 'base', 'one')]),
      await makeImage(cache.path, [await makeLayer(cache.path, 'base', 'two')]),
    ];
    const store = openImageStore(cache.path);
    await store.use(two.id);
    await mkdir(path.join(data.path, 'm_1'));
    await writeFile(path.join(data.path, 'm_1/record.json'), JSON.stringify({ image: one.id, more: 1 }));
    await store.claim('abcdef', data.path);
    await store.claim('ghijkl', path.join(data.path, 'never-was'));
    expect(await store.prune()).toEqual([]);
    await store.unclaim('abcdef');
    expect(await store.prune()).toEqual([]); // its machine is still there
    await rm(path.join(data.path, 'm_1'), { recursive: true });
    await store.unclaim('abcdef');
    expect((await store.prune()).map(({ file }) => file)).toContain(one.layers[0]?.file);
    expect((await store.list()).map(({ id }) => id)).toEqual([two.id]);
  });

  test.skipIf(notRoot)(
    'mounts each layer once, top first, also after a restart; unmounts all (needs root)',
    async () => {
      await using cache = await temporaryDirectory();
      await using run = await temporaryDirectory();
      const base = await makeLayer(cache.path, 'base', 'base');
      const one = await makeImage(cache.path, [base, await makeLayer(cache.path, 'agent', 'one')]);
      const two = await makeImage(cache.path, [base, await makeLayer(cache.path, 'agent', 'two')]);
      const store = openImageStore(cache.path, { runDir: run.path });
      try {
        const [first, again] = await Promise.all([store.mount(one.id), store.mount(one.id)]);
        expect(again).toEqual(first);
        expect(await readFile(path.join(first.layers[0] ?? '', 'agent'), 'utf8')).toBe('one');
        expect(await readFile(path.join(first.layers[1] ?? '', 'base'), 'utf8')).toBe('base');
        await expect(writeFile(path.join(first.layers[0] ?? '', 'agent'), 'x')).rejects.toMatchObject({
          code: 'EROFS',
        });

        const restarted = openImageStore(cache.path, { runDir: run.path });
        const other = await restarted.mount(two.id);
        expect(other.layers[1]).toBe(first.layers[1]);
        expect(await mountPointsBelow(run.path)).toHaveLength(3);
        await restarted.prune();
        expect((await restarted.list()).map((image) => image.id).sort()).toEqual([one.id, two.id].sort());
      } finally {
        await store.unmountAll();
      }
      expect(await mountPointsBelow(run.path)).toEqual([]);
      expect(
        execFileSync('losetup', ['--list', '--noheadings'], { timeout: 5_000 }).toString(),
      ).not.toContain(cache.path);
    },
  );

  test.skipIf(notRoot)('a layer in use is named, not torn out (needs root)', async () => {
    await using cache = await temporaryDirectory();
    await using run = await temporaryDirectory();
    const image = await makeImage(cache.path, [await makeLayer(cache.path, 'base', 'base')]);
    const store = openImageStore(cache.path, { runDir: run.path });
    const { layers } = await store.mount(image.id);
    const point = layers[0] ?? '';
    try {
      // An overlay above a layer holds a reference of its own; a process inside is what keeps a mount point busy.
      process.chdir(point);
      await expect(store.unmountAll()).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringContaining(point),
      });
    } finally {
      process.chdir('/');
      await store.unmountAll();
    }
    expect(await mountPointsBelow(run.path)).toEqual([]);
  });
});
