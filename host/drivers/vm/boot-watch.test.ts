import { expect, it } from 'vitest';
import type { Stamp } from '../../../protocol/machine.ts';
import { stampHypervisor, watchBoot } from './boot-watch.ts';

const at = new Date('2026-11-21T12:00:00.000Z');
const later = new Date('2026-11-21T12:00:03.000Z');

it('stamps the kernel and the first program, once each, and has seen enough then', async () => {
  const stamps: Stamp[] = [];
  let kept = 0;
  const measured: number[] = [];
  const kernel: string[] = [];
  const watch = watchBoot({
    stamps,
    keep: async () => void kept++,
    onTimer: (megahertz) => measured.push(megahertz),
    onKernel: { began: () => void kernel.push('began'), through: () => void kernel.push('through') },
  });
  expect(watch('[    0.000000] Linux version 6.1.0-56-cloud-amd64 (gcc-12)', at)).toBe('more');
  expect(watch('[    0.784113] ..... host bus clock speed is 3.0428 MHz.', at)).toBe('more');
  // It was started again.
  expect(watch('[    0.000000] Linux version 6.1.0-56-cloud-amd64 (gcc-12)', later)).toBe('more');
  expect(watch('[    0.784113] ..... CPU clock speed is 2482.2906 MHz.', later)).toBe('more');
  expect(watch('[    0.784113] ..... host bus clock speed is 993.0428 MHz.', later)).toBe('more');
  expect(watch('polydev-init: modules loaded', later)).toBe('enough');
  expect(stamps).toEqual([
    { checkpoint: 'kernel', at: at.toISOString() },
    { checkpoint: 'init', at: later.toISOString() },
  ]);
  expect(kept).toBe(2);
  expect(measured).toEqual([3.0428, 993.0428]);
  expect(kernel).toEqual(['began', 'began', 'through']);
});

it('stamps the hypervisor no later than what ran in it', () => {
  const stamps: Stamp[] = [{ checkpoint: 'kernel', at: at.toISOString() }];
  stampHypervisor(stamps);
  expect(stamps.map(({ checkpoint }) => checkpoint)).toEqual(['hypervisor', 'kernel']);
  expect(stamps[0]?.at).toBe(at.toISOString());
  const none: Stamp[] = [];
  stampHypervisor(none);
  expect(Math.abs(Date.parse(none[0]?.at ?? '') - Date.now())).toBeLessThan(60_000);
});
