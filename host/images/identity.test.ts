import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { temporaryDirectory } from './fixture.ts';
import { hashTree, imageId, layerId } from './identity.ts';

test('the same inputs give the same id, whatever the order of keys', () => {
  expect(layerId('base', { a: 1, b: [1, 2] })).toBe(layerId('base', { b: [1, 2], a: 1 }));
  expect(layerId('base', { a: 1 })).toMatch(/^[0-9a-f]{16}$/);
});

test('another value, another order of a list or another layer gives another id', () => {
  const ids = [
    layerId('base', { a: [1, 2] }),
    layerId('base', { a: [2, 1] }),
    layerId('base', { a: [1, 2], b: null }),
    layerId('clis', { a: [1, 2] }),
  ];
  expect(new Set(ids).size).toBe(ids.length);
});

test('an image is its layers in their order', () => {
  expect(imageId(['a', 'b'])).toBe(imageId(['a', 'b']));
  expect(imageId(['a', 'b'])).not.toBe(imageId(['b', 'a']));
  expect(imageId(['a', 'b'])).not.toBe(imageId(['ab']));
});

test('a tree: content, executable bit, link target and name count; the umask of the checkout does not', async () => {
  await using directory = await temporaryDirectory();
  const tree = path.join(directory.path, 'tree');
  const file = path.join(tree, 'etc/file');
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, 'one');
  await chmod(file, 0o644);
  await symlink('file', path.join(tree, 'etc/link'));
  const seen: string[] = [];
  const id = async (): Promise<string> => layerId('agent', await hashTree(tree));
  seen.push(await id());

  await chmod(file, 0o600);
  expect(await id()).toBe(seen[0]);

  await writeFile(file, 'two');
  seen.push(await id());
  await chmod(file, 0o755);
  seen.push(await id());
  await rm(path.join(tree, 'etc/link'));
  await symlink('/dev/null', path.join(tree, 'etc/link'));
  seen.push(await id());
  await writeFile(path.join(tree, 'etc/more'), '');
  seen.push(await id());
  expect(new Set(seen).size).toBe(seen.length);
});
