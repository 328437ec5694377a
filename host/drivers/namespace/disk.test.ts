/** Private disks as guests and the host see them. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { auditSettled } from '../../leaks.ts';
import { type HostService, startHostService } from '../../service.ts';
import { loopDevices } from '../../system/loops.ts';
import { type Bench, lacking, newInstance, newSpec, shellGuest } from '../../testing/fixture.ts';

const missing = lacking({ image: true });
const MIB = 1024 * 1024;
const SMALL = { cpus: 1, memoryMiB: 256, pids: 64, diskMiB: 32 };
/** Fills the disk, says what it was told, and how much it has written. */
const FILL = `cd /home/person; dd if=/dev/zero of=big bs=65536 2>&1 | grep -o 'No space left on device'
  sync; echo "wrote $(($(stat -c %s big) / 1048576))"; echo done; exec sleep 60`;

describe.skipIf(missing !== undefined)(`private disks (needs ${missing ?? 'nothing more'})`, () => {
  let bench: Bench;
  let service: HostService | undefined;
  beforeEach(() => {
    bench = newInstance();
  });
  afterEach(async () => {
    await service?.stop();
    service = undefined;
    const left = await auditSettled(bench.config);
    bench[Symbol.dispose]();
    expect(left).toEqual([]);
  });
  const start = async (script: string): Promise<HostService> => {
    service = await startHostService(bench.config, bench.log, { argv: shellGuest(script) });
    return service;
  };
  const folderOf = (id: string): string => join(bench.config.dataDir, 'machines', id);
  const loopsOf = (id: string) => loopDevices().filter(({ file }) => file.startsWith(folderOf(id)));

  it.each(['browser', 'cli'] as const)(
    'ends a full %s disk with ENOSPC, at no cost to the host',
    async (kind) => {
      // The host's file system of this test alone: what others write meanwhile does not count.
      const file = `${bench.config.dataDir}.host.ext4`;
      execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', file, '3g']);
      execFileSync('mount', ['-o', 'loop', file, bench.config.dataDir]);
      try {
        const { machines } = await start(FILL);
        const free = async (): Promise<number> => {
          execFileSync('sync', ['--file-system', bench.config.dataDir]);
          const { bavail, bsize } = await statfs(bench.config.dataDir);
          return (bavail * bsize) / MIB;
        };
        const before = await free();
        const spec = newSpec({ kind, limits: SMALL });
        await machines.put(spec);
        await expect.poll(() => machines.console(spec.id), { timeout: 20_000 }).toContain('done\n');
        const said = await machines.console(spec.id);
        expect(said).toContain('No space left on device');
        const wrote = Number(/wrote (\d+)/.exec(said)?.[1]);
        expect(wrote).toBeGreaterThan(16);
        expect(wrote).toBeLessThan(32);
        expect(before - (await free())).toBeLessThanOrEqual(33);
        expect(loopsOf(spec.id)).toHaveLength(1);
        await machines.destroy(spec.id);
        expect(loopsOf(spec.id)).toEqual([]);
        expect(before - (await free())).toBeLessThan(1);
        await service?.stop();
        service = undefined;
      } finally {
        execFileSync('umount', [bench.config.dataDir]);
        await rm(file);
      }
    },
  );

  it('is refused when all disks together would be more than the host may promise', async () => {
    const { blocks, bsize } = await statfs(bench.config.dataDir);
    const totalMiB = (blocks * bsize) / MIB;
    // Room for two disks and a half of one.
    const diskMiB = Math.floor(totalMiB / 100);
    bench.config.diskOvercommit = 0.025;
    const { machines, health } = await start('exec sleep 60');
    const specs = Array.from({ length: 3 }, () => newSpec({ limits: { ...SMALL, diskMiB } }));
    const results = await Promise.allSettled(specs.map((spec) => machines.put(spec)));
    const refused = results.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
    expect(refused).toMatchObject([{ code: 'host_out_of_space' }]);
    expect((await health()).promisedDiskMiB.used).toBe(2 * diskMiB);
    const here = specs.filter((_, index) => results[index]?.status === 'fulfilled');
    expect(here).toHaveLength(2);
    await Promise.all(here.slice(0, 1).map(({ id }) => machines.destroy(id)));
    await machines.put(newSpec({ limits: { ...SMALL, diskMiB } }));
  });

  it('has the size that was asked for, and takes only what is written', async () => {
    const { machines } = await start('df -m / | tail -n 1; echo done; exec sleep 60');
    const spec = newSpec({ kind: 'cli', limits: { ...SMALL, diskMiB: 4096 } });
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toContain('done\n');
    const total = Number(/^\S+\s+(\d+)/.exec(await machines.console(spec.id))?.[1]);
    expect(total).toBeGreaterThan(3800);
    expect(total).toBeLessThanOrEqual(4096);
    const { size, blocks, mode, uid } = statSync(join(folderOf(spec.id), 'disk.ext4'));
    expect(size).toBe(4096 * MIB);
    expect(blocks * 512).toBeLessThan(32 * MIB);
    expect([mode & 0o777, uid]).toEqual([0o600, 0]);
  });

  it('keeps the device while the machine runs, gives it back with the stop, and has the same files then', async () => {
    const { machines } = await start(
      'cat /home/person/mark; echo kept > /home/person/mark; echo done; exec sleep 60',
    );
    const spec = newSpec({ kind: 'cli', limits: SMALL });
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toContain('done\n');
    const [device] = loopsOf(spec.id);
    expect(device).toBeDefined();
    expect(readFileSync(`/sys/block/${device?.name}/loop/autoclear`, 'utf8').trim()).toBe('1');
    await machines.stop(spec.id);
    expect(loopsOf(spec.id)).toEqual([]);
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toBe('kept\ndone\n');
    await machines.destroy(spec.id);
    expect(existsSync(folderOf(spec.id))).toBe(false);
  });

  it('goes on with the folder of a machine that was made before disks had a size', async () => {
    const { machines } = await start(
      'cat /home/person/mark; echo kept > /home/person/mark; echo done; exec sleep 60',
    );
    const spec = newSpec({ kind: 'cli' });
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toContain('done\n');
    await machines.stop(spec.id);
    // As the earlier version left it: upper and work beside the record.
    const folder = folderOf(spec.id);
    const at = join(folder, 'mnt');
    await mkdir(at);
    execFileSync('mount', ['-o', 'loop', join(folder, 'disk.ext4'), at]);
    for (const name of ['upper', 'work']) execFileSync('cp', ['-a', join(at, name), folder]);
    execFileSync('umount', [at]);
    await rename(join(folder, 'disk.ext4'), join(bench.config.dataDir, 'aside'));
    await machines.put(spec);
    await expect.poll(() => machines.console(spec.id)).toBe('kept\ndone\n');
    expect(loopsOf(spec.id)).toEqual([]);
    await machines.destroy(spec.id);
    expect(existsSync(folder)).toBe(false);
  });
});
