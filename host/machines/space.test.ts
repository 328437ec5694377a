import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allowedMiB, checkSpace, diskSpace } from './space.ts';

describe('the space that machines are promised', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'polydev-space-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('may be as many times the disk as the factor says, and no more', async () => {
    const { total } = await diskSpace(folder);
    const allowed = allowedMiB(total, 2);
    await checkSpace(folder, 2, { used: allowed - 100, wanted: 100 });
    const refused = checkSpace(folder, 2, { used: allowed - 100, wanted: 101 });
    await expect(refused).rejects.toMatchObject({ code: 'host_out_of_space' });
    await expect(refused).rejects.toThrow(`promised ${allowed - 100} MiB`);
  });
});
