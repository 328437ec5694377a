import { driverTemplateContract } from '../../testkit/contracts/driver-template.ts';
import { lackingForVirtual, newInstance } from '../testing/fixture.ts';

driverTemplateContract({
  name: 'qemu',
  missing: await lackingForVirtual(),
  bench: newInstance,
  bootMs: 240_000,
});
