import { driverContract } from '../../testkit/contracts/driver.ts';
import { CHECKOUT, lacking, lackingForVirtual, newInstance } from '../testing/fixture.ts';

const missing = lacking({ image: true });

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
  missing: await lackingForVirtual(),
  bench: newInstance,
  checkout: CHECKOUT,
  bootMs: 180_000,
  hibernates: true,
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
  missing: (await lackingForVirtual()) ?? lackingForFirecracker(),
  bench: () => {
    const made = newInstance();
    const config = { ...made.config, firecracker: process.env.POLYDEV_FIRECRACKER };
    return { config, [Symbol.dispose]: () => made[Symbol.dispose]() };
  },
  checkout: CHECKOUT,
  bootMs: 60_000,
  hibernates: true,
});
