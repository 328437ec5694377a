import { driverContract } from '../../testkit/contracts/driver.ts';
import { CHECKOUT, lacking, lackingForVirtual, newInstance } from '../testing/fixture.ts';

const missing = lacking({ image: true });

driverContract({ name: 'namespace', missing, bench: newInstance, checkout: CHECKOUT, bootMs: 60_000 });
driverContract({
  name: 'qemu',
  missing: await lackingForVirtual(),
  bench: newInstance,
  checkout: CHECKOUT,
  bootMs: 180_000,
});
