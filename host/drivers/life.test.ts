import { existsSync } from 'node:fs';
import { driverCopiesContract } from '../../testkit/contracts/driver-copies.ts';
import { driverLifeContract } from '../../testkit/contracts/driver-life.ts';
import { findVmParts } from '../images/vm.ts';
import { CHECKOUT, IMAGE_CACHE, lacking, newInstance } from '../testing/fixture.ts';

const missing = lacking({ image: true });
const own = { bench: newInstance, checkout: CHECKOUT };
/** Where processors are emulated each start takes half a minute: only when asked for. */
const full = process.env.POLYDEV_FULL_CONTRACT === '1';

async function lackingForQemu(): Promise<string | undefined> {
  if (missing !== undefined) return missing;
  if (!existsSync('/usr/bin/qemu-system-x86_64')) return 'the package qemu-system-x86';
  const parts = await findVmParts({ cacheDir: IMAGE_CACHE, checkout: CHECKOUT });
  return parts === undefined ? 'the kernel of virtual machines (./polydev image build --vm)' : undefined;
}

driverLifeContract({
  ...own,
  name: 'namespace',
  missing,
  bootMs: 60_000,
  many: { inARow: 20, atOnce: 5 },
});
driverLifeContract({
  ...own,
  name: 'qemu',
  missing: full ? await lackingForQemu() : 'time; ./polydev test machines takes it',
  bootMs: 240_000,
  many: { inARow: 20, atOnce: 5 },
});

driverCopiesContract({
  ...own,
  name: 'namespace',
  missing: 'a driver that makes templates',
  bootMs: 60_000,
});
driverCopiesContract({
  ...own,
  name: 'qemu',
  missing: full ? await lackingForQemu() : 'time; ./polydev test machines takes it',
  bootMs: 600_000,
});
