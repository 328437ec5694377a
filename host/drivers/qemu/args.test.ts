import { expect, it } from 'vitest';
import { clockKhz, hypervisorArguments } from './args.ts';

const plan = {
  accelerator: 'tcg' as const,
  limits: { cpus: 1.5, memoryMiB: 512, pids: 100 },
  kind: 'browser' as const,
  hostname: 'm-abcdefghij',
  mac: '02:70:0a:d5:00:02',
  files: {
    kernel: 3,
    initrd: 4,
    layers: [5, 6, 7],
    disk: 8,
    config: 9,
    console: 10,
    qmp: 11,
    agent: 12,
    tap: 13,
  },
};

it('opens nothing by a path, keeps layers and configuration read-only, and stays within the kernel’s limit', () => {
  const argv = hypervisorArguments(plan);
  expect(argv.filter((word) => /(^|[=,])\//.test(word) && !/\/dev\/fd\/\d+/.test(word))).toEqual([]);
  const drives = argv.filter((word) => word.startsWith('id=') && word.includes('format=raw'));
  expect(drives.filter((word) => word.includes('readonly=on')).map((word) => word.split(',')[0])).toEqual([
    'id=layer0',
    'id=layer1',
    'id=layer2',
    'id=config',
  ]);
  expect(argv.join(' ')).toContain('-smp 2 -m 512M');
  const append = argv[argv.indexOf('-append') + 1] ?? '';
  // x86 drops what is beyond 2048 bytes without a word.
  expect(append.length).toBeLessThan(2000);
  expect(append).toContain('polydev.layers=3 polydev.volatile');
  // No secret, no token, not even its hash: every process of the host can read this line.
  expect(argv.join(' ')).not.toMatch(/token|hash|mark/i);
});

it('gives a copy memory and disk that it changes for itself alone', () => {
  const memory = { descriptor: 15, own: false };
  const argv = hypervisorArguments({ ...plan, files: { ...plan.files, base: 14, memory } });
  expect(argv.filter((word) => /(^|[=,])\//.test(word) && !/\/dev\/fd\/\d+/.test(word))).toEqual([]);
  expect(argv.join(' ')).toContain('mem-path=/dev/fd/15,share=off');
  expect(argv.join(' ')).toContain('-incoming defer');
  const disk: unknown = JSON.parse(argv[argv.indexOf('-blockdev') + 1] ?? '');
  expect(disk).toMatchObject({
    driver: 'qcow2',
    file: { filename: '/dev/fd/8' },
    backing: { 'read-only': true, file: { filename: '/dev/fd/14', 'read-only': true } },
  });
});

it('reads the clock from the host, as the kernel will not measure it under load', () => {
  expect(clockKhz('cpu MHz\t\t: 2500.000\nbogomips\t: 5000.00\n')).toBe(2_500_000);
  expect(clockKhz('Features: fp\n')).toBeUndefined();
});
