import { driverCopiesContract } from '../../testkit/contracts/driver-copies.ts';
import { driverLifeContract } from '../../testkit/contracts/driver-life.ts';
import {
  CHECKOUT,
  lacking,
  lackingForFirecracker,
  lackingForVirtual,
  newFirecrackerInstance,
  newInstance,
} from '../testing/fixture.ts';

const missing = lacking({ image: true });
const own = { bench: newInstance, checkout: CHECKOUT };
/** Where processors are emulated the page of a template takes a minute or more: only when asked for. */
const full = process.env.POLYDEV_FULL_CONTRACT === '1';

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
  missing: await lackingForVirtual(),
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
  missing: full ? await lackingForVirtual() : 'time; ./polydev test machines takes it',
  bootMs: 600_000,
});
driverCopiesContract({
  checkout: CHECKOUT,
  name: 'firecracker',
  missing: await lackingForFirecracker(),
  bench: newFirecrackerInstance,
  bootMs: 60_000,
});
