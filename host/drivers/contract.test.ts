import { driverContract } from '../../testkit/contracts/driver.ts';
import {
  CHECKOUT,
  lacking,
  lackingForFirecracker,
  lackingForVirtual,
  newFirecrackerInstance,
  newInstance,
} from '../testing/fixture.ts';

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

driverContract({
  name: 'firecracker',
  missing: await lackingForFirecracker(),
  bench: newFirecrackerInstance,
  checkout: CHECKOUT,
  bootMs: 60_000,
  hibernates: true,
});
