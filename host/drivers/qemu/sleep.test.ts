import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { Qmp } from './qmp.ts';
import { saveGuest } from './sleep.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';

it.skipIf(process.getuid?.() !== 0 || !existsSync(QEMU))(
  'says that the disk is full when a guest cannot be saved for that, and has the guest go on (needs root and QEMU)',
  async () => {
    const root = mkdtempSync(join(tmpdir(), 'polydev-sleep-'));
    const path = join(root, 'qmp');
    // More pages than a socket takes in at once, so that QEMU itself meets the end of the writing.
    const argv = ['-nodefaults', '-display', 'none', '-machine', 'microvm', '-accel', 'tcg', '-m', '256'];
    const child = spawn(QEMU, [...argv, '-qmp', `unix:${path},server=on,wait=off`], { stdio: 'ignore' });
    try {
      for (let tries = 0; !existsSync(path) && tries < 200; tries++) await sleep(50);
      using qmp = await Qmp.connect(path, 20_000);
      const file = join(root, 'memory');
      symlinkSync('/dev/full', file);
      const saved = saveGuest(
        qmp,
        { file, socket: join(root, 'save'), owner: 0 },
        AbortSignal.timeout(20_000),
      );
      await expect(saved).rejects.toMatchObject({ code: 'ENOSPC' });
      expect(existsSync(file)).toBe(false);
      expect(await qmp.execute('query-status', {}, 20_000)).toMatchObject({ status: 'running' });
    } finally {
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
      rmSync(root, { recursive: true });
    }
  },
);
