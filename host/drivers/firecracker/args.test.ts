import { describe, expect, it } from 'vitest';
import { guestArguments } from '../vm/arguments.ts';
import type { Call } from './api.ts';
import {
  baseCalls,
  bootCalls,
  diskOrder,
  jailerArguments,
  kernelArguments,
  LOAD,
  loadCopy,
  PAUSE,
  RESUME,
  SAVE,
  START,
} from './args.ts';
import { isNewEnough, versionIn } from './binaries.ts';
import { DESCRIPTION, type Shape } from './fixtures/description.ts';
import { jailId } from './jail.ts';

const guest = {
  limits: { cpus: 1.5, memoryMiB: 1024, pids: 512 },
  kind: 'cli' as const,
  layers: 3,
  bootArguments: guestArguments({ layers: 3, kind: 'cli', hostname: 'm-abcdefghij' }),
  mac: '02:70:0a:d5:00:02',
  tap: 'vabcdefghijkl',
};

/** What of a value is not as described; empty: nothing. */
function differences(value: unknown, shape: Shape, at: string): string[] {
  if (shape === 'text') return typeof value === 'string' ? [] : [`${at} is no text`];
  if (shape === 'number') return Number.isInteger(value) ? [] : [`${at} is no whole number`];
  if (shape === 'yes') return typeof value === 'boolean' ? [] : [`${at} is neither true nor false`];
  if ('each' in shape) {
    if (!Array.isArray(value)) return [`${at} is no list`];
    return value.flatMap((inner, index) => differences(inner, shape.each, `${at}.${index}`));
  }
  if (!('fields' in shape)) return shape.includes(String(value)) ? [] : [`${at} is ${String(value)}`];
  if (typeof value !== 'object' || value === null) return [`${at} is no object`];
  const { required, fields } = shape;
  return [
    ...required.filter((name) => !(name in value)).map((name) => `${at}.${name} is missing`),
    ...Object.entries(value).flatMap(([name, inner]) => {
      const known = fields[name];
      return known === undefined ? [`${at}.${name} is unknown`] : differences(inner, known, `${at}.${name}`);
    }),
  ];
}

function described({ method, path, body }: Call): string[] {
  const exact = DESCRIPTION[`${method} ${path}`];
  if (exact !== undefined) return differences(body, exact, path);
  const folder = path.slice(0, path.lastIndexOf('/'));
  const pattern = Object.keys(DESCRIPTION).find((key) => key.startsWith(`${method} ${folder}/{`));
  const shape = pattern === undefined ? undefined : DESCRIPTION[pattern];
  if (shape === undefined) return [`${method} ${path} is unknown`];
  const idField = /\{(.+)\}/.exec(pattern ?? '')?.[1] ?? '';
  const id = (body as Record<string, unknown>)[idField];
  const same = id === path.slice(folder.length + 1) ? [] : [`${path}: ${idField} is ${String(id)}`];
  return [...same, ...differences(body, shape, path)];
}

describe('requests to Firecracker', () => {
  it('are all as its published description has them', () => {
    const calls = [
      ...bootCalls(guest),
      ...bootCalls({ ...guest, kind: 'browser' }),
      ...baseCalls(1, 128, kernelArguments(['polydev.probe'])),
      ...[START, PAUSE, RESUME, SAVE, LOAD, loadCopy('vabcdefghijkl')],
    ];
    expect(calls.flatMap(described)).toEqual([]);
  });

  it('would not pass if they were not', () => {
    const wrong: Call = {
      method: 'PUT',
      path: '/drives/a',
      body: { drive_id: 'b', is_read_only: 1, extra: 1 },
    };
    expect(described(wrong)).toEqual([
      '/drives/a: drive_id is b',
      '/drives/a.is_root_device is missing',
      '/drives/a.is_read_only is neither true nor false',
      '/drives/a.extra is unknown',
    ]);
    const overrides: Call = {
      method: 'PUT',
      path: '/snapshot/load',
      body: { snapshot_path: '/state', network_overrides: [{ iface_id: 'eth0', tap: 'v' }] },
    };
    expect(described(overrides)).toEqual([
      '/snapshot/load.network_overrides.0.host_dev_name is missing',
      '/snapshot/load.network_overrides.0.tap is unknown',
    ]);
  });

  it('give the disks in the order that the guest is told, and only the private one for writing', () => {
    const drives = bootCalls(guest).filter(({ path }) => path.startsWith('/drives/'));
    expect(drives.map(({ path }) => path.slice('/drives/'.length))).toEqual(diskOrder(3));
    const writable = drives.filter(
      ({ body }) => body !== undefined && 'is_read_only' in body && !body.is_read_only,
    );
    expect(writable.map(({ path }) => path)).toEqual(['/drives/private']);
  });

  it('stay within what the kernel reads of its command line, with room for what Firecracker adds', () => {
    const boot = bootCalls(guest).find(({ path }) => path === '/boot-source');
    const words = String((boot?.body as { boot_args?: string } | undefined)?.boot_args);
    // x86 drops what is beyond 2048 bytes without a word; 30 devices of 40 bytes each would still fit.
    expect(words.length).toBeLessThan(2048 - 512);
    expect(words).toContain('polydev.disks=layer0,layer1,layer2,private,config polydev.layers=3');
  });
});

describe('the jail', () => {
  const plan = {
    id: jailId('m_abcdefghijklmnopqrst' as Parameters<typeof jailId>[0]),
    firecracker: '/usr/local/bin/firecracker',
    jailer: '/usr/local/bin/jailer',
    uid: 1_879_048_192,
    base: '/data/m/jail',
    netns: '/run/netns/n',
    cgroup: '/polydev-abcdef/m_abcdefghijklmnopqrst',
    cgroupVersion: 2 as const,
    limits: { memoryBytes: 1_207_959_552, cpus: 1.5, pids: 64 },
  };

  it('has a user, a group, a namespace and limits of its own, by either version of control groups', () => {
    const words = jailerArguments(plan).join(' ');
    // Firecracker takes letters, digits and hyphens only.
    expect(plan.id).toMatch(/^[A-Za-z0-9-]{1,64}$/);
    expect(words).toContain('--uid 1879048192 --gid 1879048192');
    expect(words).toContain('--netns /run/netns/n --cgroup-version 2');
    expect(words).toContain('--parent-cgroup polydev-abcdef/m_abcdefghijklmnopqrst');
    expect(words).toContain(
      '--cgroup memory.max=1207959552 --cgroup cpu.max=150000 100000 --cgroup pids.max=64 --',
    );
    expect(jailerArguments({ ...plan, cgroupVersion: 1 }).join(' ')).toContain(
      '--cgroup memory.limit_in_bytes=1207959552 --cgroup cpu.cfs_period_us=100000 --cgroup cpu.cfs_quota_us=150000',
    );
  });
});

it('knows versions it can work with', () => {
  expect(versionIn('Firecracker', 'Firecracker v1.16.1\n\n2026-11-21T06:34:19 exiting')).toBe('1.16.1');
  expect(versionIn('Jailer', 'Jailer v1.17.0-dev\n')).toBe('1.17.0-dev');
  expect(versionIn('Jailer', 'Firecracker v1.16.1\n')).toBeUndefined();
  expect(['1.16.0', '1.17.0-dev', '2.0.0'].filter(isNewEnough)).toEqual(['1.16.0', '1.17.0-dev', '2.0.0']);
  expect(['1.15.1', '0.25.0', '1.9.0'].filter(isNewEnough)).toEqual([]);
});
