import path from 'node:path';
import { planSubnet } from '../../../host/network/addresses.ts';
import { Leases } from '../../../host/system/leases.ts';
import type { Fault } from '../fault.ts';

export const addressPoolExhausted: Fault = {
  name: 'address-pool-exhausted',
  expect: 'addresses_exhausted',
  // The smallest subnet there is: 54 addresses for machines.
  host: async () => ({ subnet: '10.213.0.0/26' }),
  before: async ({ config, defer }) => {
    const { firstMachine, lastMachine } = planSubnet(config.subnet);
    const leases = new Leases(path.join(config.runDir, 'addresses'));
    for (let number = firstMachine; number <= lastMachine; number++) {
      if (await leases.claim(number, 'somebody')) defer(() => leases.release(number, 'somebody'));
    }
  },
};
