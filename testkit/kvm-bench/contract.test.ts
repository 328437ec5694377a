/** The contracts of drivers for those that need KVM; run inside the outer machine. */
import { existsSync } from 'node:fs';
import { findVmParts } from '../../host/images/vm.ts';
import { CHECKOUT, IMAGE_CACHE, lacking, newInstance } from '../../host/testing/fixture.ts';
import { driverContract } from '../contracts/driver.ts';
import { driverLifeContract } from '../contracts/driver-life.ts';
import { driverTemplateContract } from '../contracts/driver-template.ts';

/** Measured: what hardware does in a second takes the emulated one many. */
const SLOWDOWN = 10;
const BOOT_MS = 600_000;

const firecracker = process.env.POLYDEV_FIRECRACKER;
const jailer = process.env.POLYDEV_JAILER;

async function missing(): Promise<string | undefined> {
  const first = lacking({ image: true });
  if (first !== undefined) return first;
  if (!existsSync('/dev/kvm')) return 'KVM';
  const parts = await findVmParts({ cacheDir: IMAGE_CACHE, checkout: CHECKOUT });
  return parts === undefined ? 'the kernel of virtual machines (./polydev image build --vm)' : undefined;
}

const bench = () => {
  const made = newInstance();
  const config = { ...made.config, firecracker, jailer, slowdown: SLOWDOWN };
  return { config, [Symbol.dispose]: () => made[Symbol.dispose]() };
};

/** The one that this computer was started for. */
const driver = process.env.POLYDEV_BENCH_DRIVER === 'firecracker' ? 'firecracker' : 'qemu';
const binary = driver === 'firecracker' && firecracker === undefined;
const contract = {
  name: driver,
  missing: (await missing()) ?? (binary ? 'Firecracker (POLYDEV_FIRECRACKER)' : undefined),
  bench,
  checkout: CHECKOUT,
  bootMs: BOOT_MS,
  patience: SLOWDOWN,
} as const;
driverContract({ ...contract, hibernates: true });
driverTemplateContract(contract);
// A start takes a minute or two here.
driverLifeContract({ ...contract, many: { inARow: 3, atOnce: 2 } });
