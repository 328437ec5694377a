/** The main job once more, in virtual machines that are emulated in software: genuine Codex, Chromium, kernel and QEMU. */
import { describe, expect, it } from 'vitest';
import { lackingForVirtual } from '../../host/testing/fixture.ts';
import { install } from './installation.ts';
import { NO_TRACES, tracesOf } from './leaks.ts';

const missing = await lackingForVirtual();
/** Measured: see docs/drivers.md. The most that a connect may take on a busy computer whose processors are emulated in software. */
const CONNECT_SECONDS = 900;

describe.skipIf(missing !== undefined)(
  `a login session under QEMU (needs ${missing ?? 'nothing more'})`,
  () => {
    it('connects Codex, and stopping leaves nothing', {
      timeout: (CONNECT_SECONDS + 300) * 1000,
    }, async () => {
      await using polydev = await install({ driver: 'qemu' });
      const run = await polydev.polydev(
        ['connect', 'codex', '--test-idp', '--json', '--expires', '840'],
        CONNECT_SECONDS,
      );
      expect(run.exitCode, run.stderr + run.stdout).toBe(0);
      expect(run.stdout.trim().split('\n').at(-1)).toContain('"type":"completed"');
      const machines = await polydev.machines();
      expect(machines.map(({ driver }) => driver)).toEqual(machines.map(() => 'qemu'));
      expect(machines.filter(({ state }) => state === 'ready').map(({ kind }) => kind)).toEqual(['cli']);
      expect((await polydev.polydev(['machines', 'rm', '--all'])).exitCode).toBe(0);
      await polydev.stop();
      expect(await tracesOf([polydev.instance, polydev.dataDir])).toEqual(NO_TRACES);
    });
  },
);
