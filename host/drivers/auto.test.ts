import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { startHostService } from '../service.ts';
import { lacking, newInstance } from '../testing/fixture.ts';
import type { DriverReport } from './driver.ts';
import { knownTrial, rememberTrial } from './trials.ts';

const missing = lacking({ image: true });

describe.skipIf(missing !== undefined)(`choice of the driver (needs ${missing ?? 'nothing more'})`, () => {
  it('is one that runs a guest here, and says which ones do not and why', async () => {
    using bench = newInstance();
    const config = { ...bench.config, driver: 'auto' as const, firecracker: '/nonexistent/firecracker' };
    const service = await startHostService(config, bench.log);
    try {
      expect(service.driver.why).toContain('it runs a guest here');
      expect(service.driver.why).toContain('firecracker: programs: not found at /nonexistent/firecracker');
      // Before namespaces comes only QEMU with a KVM that really ran a guest.
      if (service.driver.name === 'namespace') expect(service.driver.why).toContain('qemu (kvm)');
      else expect(service.driver.why).toContain('qemu-kvm');
      expect(await service.health()).toMatchObject({ ok: true, problems: [] });
    } finally {
      await service.stop();
    }
  });

  it('is kept when it was asked for by name, with what is wrong', async () => {
    using bench = newInstance();
    const config = {
      ...bench.config,
      driver: 'firecracker' as const,
      firecracker: '/nonexistent/firecracker',
    };
    const service = await startHostService(config, bench.log);
    try {
      expect(service.driver.name).toBe('firecracker');
      const health = await service.health();
      expect(health).toMatchObject({ ok: false, driver: 'firecracker' });
      expect(health.problems).toEqual([expect.stringContaining('set POLYDEV_FIRECRACKER')]);
    } finally {
      await service.stop();
    }
  });
});

it('remembers a trial that passed or was long, for one driver and guest each', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'polydev-trials-'));
  const report = (ok: boolean, ms: number): DriverReport => ({
    driver: 'qemu',
    ok,
    problems: ok ? [] : ['no'],
    ms,
  });
  try {
    await rememberTrial(folder, 'qemu-tcg', report(true, 10), 'guest a');
    await rememberTrial(folder, 'qemu-kvm', report(false, 5000), 'guest a');
    await rememberTrial(folder, 'firecracker', report(false, 10), 'guest a');
    expect((await knownTrial(folder, 'qemu-tcg', 'guest a'))?.problems).toEqual([]);
    expect((await knownTrial(folder, 'qemu-kvm', 'guest a'))?.problems).toEqual(['no']);
    expect(await knownTrial(folder, 'firecracker', 'guest a')).toBeUndefined();
    expect(await knownTrial(folder, 'qemu-tcg', 'guest b')).toBeUndefined();
    await rememberTrial(folder, 'qemu-kvm', report(false, 10), 'guest a');
    expect(await knownTrial(folder, 'qemu-kvm', 'guest a')).toBeUndefined();
    expect((await knownTrial(folder, 'qemu-tcg', 'guest a'))?.problems).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
