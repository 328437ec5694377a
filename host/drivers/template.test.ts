import { driverTemplateContract } from '../../testkit/contracts/driver-template.ts';
import {
  lackingForFirecracker,
  lackingForVirtual,
  newFirecrackerInstance,
  newInstance,
} from '../testing/fixture.ts';

driverTemplateContract({
  name: 'qemu',
  missing: await lackingForVirtual(),
  bench: newInstance,
  bootMs: 240_000,
});
driverTemplateContract({
  name: 'firecracker',
  missing: await lackingForFirecracker(),
  bench: newFirecrackerInstance,
  bootMs: 60_000,
});
