import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { audit } from '../leaks.ts';
import { listIfThere } from '../system/files.ts';
import { CHECKOUT, lacking, randomInstance } from '../testing/fixture.ts';
import type { Check } from './check.ts';
import { examineHost } from './host.ts';

const missing = lacking({ image: false });
const folder = mkdtempSync(join(tmpdir(), 'polydev-doctor-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(missing !== undefined)(`doctor (needs ${missing ?? 'nothing more'})`, () => {
  it('tries everything, says what it saw, mends by a command, and leaves nothing', async () => {
    const instance = randomInstance();
    const places = {
      instance,
      runDir: `/run/polydev-${instance}`,
      dataDir: folder,
      sharedDir: join(folder, 'shared'),
    };
    const checks = await examineHost(
      { ...places, checkout: CHECKOUT, imageCacheDir: join(folder, 'images'), running: false },
      AbortSignal.timeout(30_000),
    );
    const of = (name: string): Check | undefined => checks.find((check) => check.name === name);
    // Of this host: machines run here, or the tests of the drivers would not.
    for (const name of [
      'user namespace',
      'idmapped overlay',
      'runc',
      'guest',
      'bridge',
      'veth',
      'packet filters',
    ]) {
      expect(of(name)).toMatchObject({ result: 'ok' });
    }
    expect(of('image')).toMatchObject({ result: 'fail', remedy: './polydev image build' });
    for (const { result, fact, remedy } of checks) {
      expect(fact).not.toBe('');
      if (result !== 'ok') expect(remedy).not.toBeNull();
    }
    expect(await audit(places)).toEqual([]);
    const left = [...(await listIfThere('/run')), ...(await listIfThere('/run/netns'))];
    expect(left.filter((name) => name.includes('doctor'))).toEqual([]);
  });
});
