import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { ownFiles } from './idp.ts';

it('lists the state of the identity provider without going through links', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'polydev-idp-'));
  try {
    mkdirSync(join(folder, 'outside'));
    writeFileSync(join(folder, 'outside', 'passwd'), '');
    mkdirSync(join(folder, 'state', 'keys'), { recursive: true });
    writeFileSync(join(folder, 'state', 'keys', 'ca.pem'), '');
    symlinkSync('../outside', join(folder, 'state', 'link'));
    const state = join(folder, 'state');
    expect((await ownFiles(state)).sort()).toEqual([
      state,
      join(state, 'keys'),
      join(state, 'keys', 'ca.pem'),
      join(state, 'link'),
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
