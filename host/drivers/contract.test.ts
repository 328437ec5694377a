import { existsSync } from 'node:fs';
import { driverContract } from '../../testkit/contracts/driver.ts';
import { findVmParts } from '../images/vm.ts';
import { CHECKOUT, IMAGE_CACHE, lacking, newInstance } from '../testing/fixture.ts';

const missing = lacking({ image: true });

async function lackingForQemu(): Promise<string | undefined> {
  if (missing !== undefined) return missing;
  if (!existsSync('/usr/bin/qemu-system-x86_64')) return 'the package qemu-system-x86';
  const parts = await findVmParts({ cacheDir: IMAGE_CACHE, checkout: CHECKOUT });
  return parts === undefined ? 'the kernel of virtual machines (./polydev image build --vm)' : undefined;
}

driverContract({
  name: 'namespace',
  missing,
  bench: newInstance,
  checkout: CHECKOUT,
  bootMs: 60_000,
  hibernates: true,
});
driverContract({
  name: 'qemu',
  missing: await lackingForQemu(),
  bench: newInstance,
  checkout: CHECKOUT,
  bootMs: 180_000,
  hibernates: false,
});

/** That /dev/kvm opens proves nothing: who runs this says so. */
function lackingForFirecracker(): string | undefined {
  if (process.env.POLYDEV_FIRECRACKER === undefined) return 'Firecracker (POLYDEV_FIRECRACKER)';
  if (process.env.POLYDEV_KVM !== 'yes')
    return 'a KVM that runs guests (POLYDEV_KVM=yes); ./polydev test kvm has one';
  return undefined;
}

driverContract({
  name: 'firecracker',
  missing: (await lackingForQemu()) ?? lackingForFirecracker(),
  bench: () => {
    const made = newInstance();
    const config = { ...made.config, firecracker: process.env.POLYDEV_FIRECRACKER };
    return { config, [Symbol.dispose]: () => made[Symbol.dispose]() };
  },
  checkout: CHECKOUT,
  bootMs: 60_000,
  hibernates: true,
});
